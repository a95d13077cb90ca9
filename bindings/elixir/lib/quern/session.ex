# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Session do
  @moduledoc """
  One sequence of token ids with its KV cache.

  The results of a session depend only on its ids, bit for bit on the CPU: not on how they were fed, nor on concurrent
  computations. Its memory is allocated on creation. A `Quern.Generation` has exclusive use of the session until it ends:
  meanwhile other changes raise `Quern.Error` with `:ebusy`.
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
  Create a session with an empty sequence.

  Options:

    * `:n_ctx` - capacity in tokens; default the smaller of the model's and 4096
    * `:n_batch` - prompt tokens computed per turn; default 512
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

  @doc "Append ids and compute them; the logits of the last one are kept."
  @spec append(t, [non_neg_integer]) :: :ok
  def append(%__MODULE__{ref: ref} = session, ids) do
    Job.run!(:session_append, [ref, Job.pack_ids(ids), session.n_batch])
  end

  @doc """
  Prefill with prefix reuse: make the sequence equal to `ids`, computing only what follows the longest common prefix. Returns
  the number of ids reused. This is not atomic: no other process may change the session meanwhile.
  """
  @spec sync(t, [non_neg_integer]) :: non_neg_integer
  def sync(%__MODULE__{} = session, ids) do
    check!(session, ids)
    there = ids(session)
    {known, n_there, n_new} = {common(there, ids, 0), length(there), length(ids)}

    if known == n_new and n_there == n_new and logits(session) != nil do
      known
    else
      # The last id is recomputed for its logits.
      reused = min(known, n_new - 1)
      if reused < n_there, do: rewind(session, reused)
      append(session, Enum.drop(ids, reused))
      reused
    end
  end

  # Check before anything is discarded.
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

  @doc "The logits after the last id, as a binary of f32; `nil` if there are none."
  @spec logits(t) :: binary | nil
  def logits(%__MODULE__{ref: ref}), do: Job.run!(:session_logits, [ref])

  @doc "The ids of the sequence."
  @spec ids(t) :: [non_neg_integer]
  def ids(%__MODULE__{ref: ref}), do: Job.run!(:session_ids, [ref])

  @doc "Truncate the sequence to its first `n_tok` ids."
  @spec rewind(t, non_neg_integer) :: :ok
  def rewind(%__MODULE__{ref: ref}, n_tok), do: Job.run!(:session_rewind, [ref, n_tok])

  defimpl Inspect do
    def inspect(session, _opts),
      do: "#Quern.Session<#{session.n_ctx} tokens, #{inspect(session.model)}>"
  end
end
