# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Generation do
  @moduledoc """
  Generates tokens from a prompt, step by step. `Quern.TextGeneration` and `Quern.Serving` are built on it.

  A step is one turn of the device: a chunk of the prompt, or one token. It yields `{ids, pieces, result}`: the sampled ids,
  `[{:content | :reasoning, text}]` (complete characters only), and `nil` or, in the last step, a map
  with `:finish_reason` (`:stop` or `:length`), `:n_prompt`, `:n_reused`, `:n_generated`, `:prompt_s`, `:generate_s` and `:first_token_s`.
  """
  require Quern.Job
  alias Quern.{Job, Nif, Sampler, Session, Tokenizer}

  defstruct [:ref, :session, :seed]

  @type t :: %__MODULE__{ref: reference, session: Session.t(), seed: non_neg_integer}
  @type step ::
          {ids :: [non_neg_integer], pieces :: [{:content | :reasoning, String.t()}],
           result :: map | nil}

  @doc """
  Begin a generation. Nothing is computed before the first step. The prefix that the session's sequence shares with the
  prompt is reused.

  prompt is a text, in which special tokens are recognized, or a list of ids.

  Options: those of `Quern.Sampler`, and

    * `:tokenizer` - required for texts; without one, a generation yields only ids
    * `:n_predict` - maximum number of tokens; 0 (default): until the text or the context ends
    * `:stop` - texts that end the generation and are not emitted
    * `:stop_token_ids` - further ids that end it, even with `:ignore_eos`
    * `:min_tokens` - minimum number of tokens before an id that ends the text may be sampled
    * `:ends` - additional end-of-text ids: see `Quern.Chat.ends/2`
    * `:ignore_eos` - treat end-of-text ids like any other token
    * `:split_reasoning` - report the text between `<think>` and `</think>` as `:reasoning`
  """
  @spec new(Session.t(), String.t() | [non_neg_integer], keyword) :: t
  def new(%Session{} = session, prompt, opts \\ []) do
    {arguments, seed} = arguments(session, prompt, opts)
    [session_ref, tokenizer, prompt, sampler, options] = arguments
    ref = Job.run!(:generation_new, [session_ref, tokenizer, prompt, sampler, options])
    %__MODULE__{ref: ref, session: session, seed: seed}
  end

  @doc false
  # For asynchronous callers: the arguments of Nif.generation_new after its reference.
  def arguments(%Session{} = session, prompt, opts) do
    own = [
      :tokenizer,
      n_predict: 0,
      stop: [],
      stop_token_ids: [],
      min_tokens: 0,
      ends: [],
      ignore_eos: false,
      split_reasoning: false
    ]

    opts = Keyword.validate!(opts, own ++ Sampler.keys())
    {sampler, seed} = Sampler.settle(opts)

    options =
      {opts[:n_predict], opts[:ignore_eos], opts[:split_reasoning], List.wrap(opts[:stop]),
       opts[:min_tokens], Job.pack_ids(opts[:ends]), Job.pack_ids(opts[:stop_token_ids])}

    prompt = if is_list(prompt), do: {:ids, Job.pack_ids(prompt)}, else: prompt
    {[session.ref, tokenizer(opts[:tokenizer]), prompt, sampler, options], seed}
  end

  defp tokenizer(nil), do: nil
  defp tokenizer(%Tokenizer{ref: ref}), do: ref

  defp tokenizer(other) do
    raise ArgumentError, "tokenizer: must be a Quern.Tokenizer, got #{inspect(other)}"
  end

  @doc "Run one step; `:over` if the generation has already ended."
  @spec next(t) :: step | :over
  def next(%__MODULE__{ref: ref}), do: Job.run!(:generation_next, [ref])

  @doc "End the generation. Its session becomes free for others and keeps what was computed."
  @spec stop(t) :: :ok
  def stop(%__MODULE__{ref: ref}), do: Job.run!(:generation_stop, [ref])

  @doc """
  Reduce over the steps: `fun.(step, acc)` returns `{:cont, acc}` or `{:halt, acc}`. Returns the result (`nil` after `:halt`, or
  if the generation had already ended) and the accumulator. The generation is stopped in every case.

  Option: `:ahead`, default 1: how many steps are requested beyond the one awaited, so that the device does not idle while
  this process runs.
  """
  @spec reduce(t, acc, (step, acc -> {:cont | :halt, acc}), keyword) :: {map | nil, acc}
        when acc: term
  def reduce(%__MODULE__{} = generation, acc, fun, opts \\ []) do
    opts = Keyword.validate!(opts, ahead: 1)
    asked = for _ <- 0..opts[:ahead], do: ask(generation)
    loop(generation, asked, acc, fun)
  end

  @doc false
  def ask(%__MODULE__{ref: generation}) do
    ref = make_ref()
    Job.value!(Nif.generation_next(ref, generation))
    ref
  end

  defp loop(generation, [ref | asked], acc, fun) do
    case Job.receive_answer(ref) do
      {:ok, {_ids, _pieces, nil} = step} ->
        next = guard(generation, asked, fn -> ask(generation) end)
        asked = asked ++ [next]

        case guard(generation, asked, fn -> fun.(step, acc) end) do
          {:cont, acc} ->
            loop(generation, asked, acc, fun)

          {:halt, acc} ->
            give_up(generation, asked)
            {nil, acc}
        end

      {:ok, {_ids, _pieces, result} = step} ->
        {_, acc} = guard(generation, asked, fn -> fun.(step, acc) end)
        give_up(generation, asked)
        {result, acc}

      # It had already ended, or another process stopped it.
      {:ok, :over} ->
        give_up(generation, asked)
        {nil, acc}

      {:error, reason} ->
        give_up(generation, asked)
        Quern.Error.raise!(reason)
    end
  end

  defp guard(generation, asked, fun) do
    fun.()
  catch
    kind, reason ->
      give_up(generation, asked)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  @doc false
  # Stop, and receive the outstanding answers so that none is left in the mailbox. A freed generation is not an error.
  def give_up(%__MODULE__{ref: ref}, asked) do
    _ = Job.run(:generation_stop, [ref])
    Enum.each(asked, &Job.receive_answer/1)
  end

  defimpl Inspect do
    def inspect(generation, _opts), do: "#Quern.Generation<#{inspect(generation.session)}>"
  end
end
