# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Sampler do
  @moduledoc """
  How tokens are sampled: options of `Quern.Generation`, `Quern.TextGeneration` and `Quern.Serving`.

    * `:mode` - source of the settings not given: `:model` (default: the model's files), `:thinking` or `:non_thinking`
      (Qwen's recommendations), `:neutral` (temperature 1 and nothing else)
    * `:temperature` - 0 is greedy: always the best token
    * `:top_k`, `:top_p`, `:min_p`
    * `:repetition_penalty`, `:presence_penalty`, `:frequency_penalty`
    * `:logit_bias` - a map or a list of pairs from ids to numbers added to their logits
    * `:seed` - 0 to 2⁶³-1; by default a random one, which the result reports
    * `:sampler` - EMLX's names: `:greedy`; `:top_p_cpu` and `:top_p_gpu`, with defaults of 0.95 for the temperature and 0.9
      for top_p

  The same seed gives the same tokens, whatever else is computed concurrently.
  """

  @settings [
    :temperature,
    :top_k,
    :top_p,
    :min_p,
    :repetition_penalty,
    :presence_penalty,
    :frequency_penalty
  ]

  @keys [:mode, :logit_bias, :seed, :sampler | @settings]

  @doc "The names of the options."
  @spec keys() :: [atom]
  def keys, do: @keys

  @doc false
  # The settings in the form that the NIF expects, and the seed.
  def settle(opts) do
    {mode, defaults} = preset(opts[:sampler], opts[:mode])
    seed = opts[:seed] || :rand.uniform(0x40000000) - 1

    given =
      for key <- @settings,
          value = Keyword.get(opts, key, defaults[key]),
          value != nil,
          do: {key, value}

    {{mode, [{:seed, seed} | given], bias(opts[:logit_bias])}, seed}
  end

  defp preset(nil, mode), do: {mode || :model, []}
  defp preset(:greedy, _mode), do: {:neutral, temperature: 0}

  defp preset(name, _mode) when name in [:top_p_cpu, :top_p_gpu],
    do: {:neutral, temperature: 0.95, top_p: 0.9}

  defp preset(other, _mode) do
    raise ArgumentError,
          "expected :sampler to be :greedy, :top_p_cpu or :top_p_gpu, got: #{inspect(other)}"
  end

  defp bias(nil), do: []
  defp bias(map) when is_map(map), do: Map.to_list(map)
  defp bias(list), do: list
end
