# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Session do
  @moduledoc """
  One timeline of token ids with its KV cache.

  What a session computes depends on its ids alone, bit by bit on the CPU: not on how they were fed, nor on others that
  compute at the same time. Its memory is taken when it is made. A `Quern.Generation` has the session for itself until it is
  over: other changes then raise `Quern.Error` with `:ebusy`.
  """
  require Quern.Job
  alias Quern.{Job, Model}

  defstruct [:ref, :model, :n_ctx, :n_batch]

  @type t :: %__MODULE__{
          ref: reference,
          model: Model.t(),
          n_ctx: pos_integer,
          n_batch: pos_integer
        }

  @doc """
  A session with an empty timeline.

  Options:

    * `:n_ctx` - capacity in tokens; default the smaller of the model's and 4096
    * `:n_batch` - tokens of a prompt that are computed in one turn; default 512
    * `:kv_type` - `:f16` (default), `:bf16`, `:f32` or `:q8`
    * `:yarn` - `:auto` (default), `:on` or `:off`
  """
  @spec new(Model.t(), keyword) :: t
  def new(%Model{} = model, opts \\ []) do
    opts = Keyword.validate!(opts, n_ctx: 0, n_batch: 512, kv_type: nil, yarn: :auto)
    options = {opts[:n_ctx], opts[:n_batch], opts[:kv_type], opts[:yarn]}
    {ref, n_ctx} = Job.run!(:session_new, [model.ref, options])
    n_batch = if opts[:n_batch] == 0, do: 512, else: opts[:n_batch]
    %__MODULE__{ref: ref, model: model, n_ctx: n_ctx, n_batch: min(n_batch, n_ctx)}
  end

  @doc "Append ids and compute them; the logits of the last are kept."
  @spec append(t, [non_neg_integer]) :: :ok
  def append(%__MODULE__{ref: ref} = session, ids) do
    Job.run!(:session_append, [ref, Job.pack_ids(ids), session.n_batch])
  end

  @doc """
  Make the timeline equal to `ids`, computing only what follows the longest common prefix; the number of ids that were
  there already. Several calls of the NIF: for sessions that no other process changes meanwhile.
  """
  @spec sync(t, [non_neg_integer]) :: non_neg_integer
  def sync(%__MODULE__{} = session, ids) do
    check!(session, ids)
    there = ids(session)
    {known, n_there, n_new} = {common(there, ids, 0), length(there), length(ids)}

    if known == n_new and n_there == n_new and logits(session) != nil do
      known
    else
      # The last one is computed again for its logits.
      reused = min(known, n_new - 1)
      if reused < n_there, do: rewind(session, reused)
      append(session, Enum.drop(ids, reused))
      reused
    end
  end

  # Before anything is forgotten.
  defp check!(_session, []), do: raise(ArgumentError, "ids: must be at least one, got none")

  defp check!(%{n_ctx: n_ctx, model: %{config: %{n_vocab: n_vocab}}}, ids) do
    Job.pack_ids(ids)

    if length(ids) > n_ctx do
      raise ArgumentError, "context: #{n_ctx} tokens are too few for #{length(ids)}"
    end

    if bad = Enum.find(ids, &(&1 < 0 or &1 >= n_vocab)) do
      raise ArgumentError, "ids: must be within 0 … #{n_vocab - 1}, got #{bad}"
    end
  end

  defp common([id | left], [id | right], n), do: common(left, right, n + 1)
  defp common(_left, _right, n), do: n

  @doc "The logits after the last id, f32 in a binary; `nil` where there are none."
  @spec logits(t) :: binary | nil
  def logits(%__MODULE__{ref: ref}), do: Job.run!(:session_logits, [ref])

  @doc "The timeline."
  @spec ids(t) :: [non_neg_integer]
  def ids(%__MODULE__{ref: ref}), do: Job.run!(:session_ids, [ref])

  @doc "Forget all but the first `n_tok` ids."
  @spec rewind(t, non_neg_integer) :: :ok
  def rewind(%__MODULE__{ref: ref}, n_tok), do: Job.run!(:session_rewind, [ref, n_tok])

  defimpl Inspect do
    def inspect(session, _opts),
      do: "#Quern.Session<#{session.n_ctx} tokens, #{inspect(session.model)}>"
  end
end
