# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Chunks do
  @moduledoc false
  # Groups the output of a generation into stream chunks: the first token at once, then `group` tokens per chunk.
  # `:stable` holds a word back until it is complete; in scripts without spaces every character is complete.
  # `:token` holds nothing back.
  alias Quern.Request

  defstruct [:group, :chunking, :split, n_token: 0, is_first: true, pending: []]

  # Letters, marks and numbers of scripts that separate words with spaces.
  @word ~r/(?:(?![\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])[\p{L}\p{M}\p{N}_'’-])+\z/u
  # Text longer than this is emitted even if no word boundary has been seen.
  @longest_word 64

  def new(%Request{} = request) do
    %__MODULE__{
      group: request.group,
      chunking: request.chunking,
      split: request.split_reasoning
    }
  end

  # {chunks to emit, state}. A chunk is a text, or {kind, text} if reasoning is split off.
  def push(%__MODULE__{} = state, ids, pieces) do
    state = %{state | n_token: state.n_token + length(ids), pending: state.pending ++ pieces}

    if state.pending != [] and (state.is_first or state.n_token >= state.group) do
      emit(%{state | is_first: false, n_token: 0})
    else
      {[], state}
    end
  end

  def flush(%__MODULE__{} = state), do: shape(state, merge(state.pending))

  defp emit(%{chunking: :token} = state), do: {flush(state), %{state | pending: []}}

  defp emit(%{chunking: :stable} = state) do
    {ready, tail} = state.pending |> merge() |> hold_word()
    {shape(state, ready), %{state | pending: tail}}
  end

  defp hold_word(pieces) do
    {done, [{kind, text}]} = Enum.split(pieces, -1)

    case Regex.run(@word, text, return: :index) do
      [{at, size}] when size <= @longest_word ->
        ready = if at > 0, do: [{kind, binary_part(text, 0, at)}], else: []
        {done ++ ready, [{kind, binary_part(text, at, size)}]}

      _none_or_too_long ->
        {pieces, []}
    end
  end

  # Merge adjacent pieces of the same kind.
  defp merge(pieces) do
    pieces
    |> Enum.chunk_by(&elem(&1, 0))
    |> Enum.map(fn [{kind, _} | _] = run -> {kind, Enum.map_join(run, &elem(&1, 1))} end)
  end

  defp shape(%{split: true}, pieces), do: pieces
  defp shape(%{split: false}, pieces), do: Enum.map(pieces, &elem(&1, 1))
end
