# SPDX-License-Identifier: Apache-2.0
defmodule Mix.Tasks.Quern.Bench do
  @shortdoc "Times text generation: run, stream, serving"
  @moduledoc """
  Times text generation through Elixir, lane by lane, after EMLX's `validate_qwen3`.

      mix quern.bench --model DIR [--max-new-tokens 64] [--runs 5] [--clients 4] [--prompt TEXT]

    * `run` - `Quern.TextGeneration.run/4`
    * `stream` - `Quern.TextGeneration.stream/5`, chunk by chunk
    * `serving` - `Quern.Serving.run/3`, one client
    * `serving xN` - `Quern.Serving.stream/3`, N concurrent clients

  Decoding is greedy and ignores end-of-text ids, so that all lanes compute the same tokens. tok/s is the median over the runs
  of the tokens after the first, divided by the time after it. p50 and p95 are of the milliseconds between tokens as seen by
  the caller. Lanes are interleaved: each run measures all of them in turn.

  `--c` adds a first lane `C`: the same generation by `qn_generate` in a separate process, interleaved likewise. The last
  column is then the tok/s relative to it, as the median of the runs' ratios. `quern bench -m DIR -p 0 -n 64` measures the
  machine's roofline.
  Other options: `--threads`, and, without `--c`, `--quantize q8|q4`.
  """
  use Mix.Task
  alias Quern.{Device, Model, Serving, TextGeneration, Tokenizer}

  @requirements ["app.start"]
  @switches [
    model: :string,
    prompt: :string,
    max_new_tokens: :integer,
    runs: :integer,
    clients: :integer,
    threads: :integer,
    quantize: :string,
    c: :boolean
  ]

  @impl true
  def run(arguments) do
    {opts, rest} = OptionParser.parse!(arguments, strict: @switches)
    if rest != [], do: Mix.raise("quern.bench: unknown option #{hd(rest)}")
    if opts[:model] == nil, do: Mix.raise("quern.bench: --model is needed")
    device = Device.open!(:cpu, threads: Keyword.get(opts, :threads, 0))
    quantize = Map.get(%{nil => nil, "q8" => :q8, "q4" => :q4}, opts[:quantize], opts[:quantize])
    model = Model.load!(opts[:model], device: device, quantize: quantize)
    tokenizer = Tokenizer.load!(opts[:model])
    clients = Keyword.get(opts, :clients, 4)

    generation = [
      sampler: :greedy,
      ignore_eos: true,
      max_new_tokens: Keyword.get(opts, :max_new_tokens, 64),
      max_len: 1024
    ]

    {:ok, serving} =
      Serving.start_link([model: model, tokenizer: tokenizer, sessions: clients] ++ generation)

    prompt = Keyword.get(opts, :prompt, "Write a short story about a robot who learns to love.")

    context = %{
      model: model,
      tokenizer: tokenizer,
      serving: serving,
      prompt: prompt,
      opts: generation
    }

    lanes =
      c_lanes(opts, prompt, generation[:max_new_tokens]) ++
        [{"run", &run_lane/1}, {"stream", &stream_lane/1}, {"serving", &serving_lane/1}]

    lanes = lanes ++ [{"serving x#{clients}", &clients_lane(&1, clients)}]

    Mix.shell().info(
      "#{device.description}, #{device.n_thread} threads, isa #{device.isa}; #{inspect(model)}"
    )

    for {_name, lane} <- lanes, do: lane.(context)

    results =
      for _ <- 1..Keyword.get(opts, :runs, 5), {name, lane} <- lanes, do: {name, lane.(context)}

    Mix.shell().info(
      "| lane | tok/s | between tokens, p50 ms | p95 ms | tokens | of C |\n|---|---|---|---|---|---|"
    )

    of_lane = fn name -> for({^name, r} <- results, do: r) end
    for {name, _lane} <- lanes, do: Mix.shell().info(row(name, of_lane.(name), of_lane.("C")))
  end

  defp c_lanes(opts, prompt, n) do
    if opts[:c] do
      root = Path.expand("../..", File.cwd!())
      {_, 0} = System.cmd("make", ["-s", "nif-bench"], cd: root)
      program = Path.join(root, "build/release/bindings/elixir/bench/generate_direct")
      arguments = [opts[:model], "#{n}", prompt, "#{Keyword.get(opts, :threads, 0)}"]
      port = Port.open({:spawn_executable, program}, [:binary, line: 100, args: arguments])
      [{"C", fn _context -> c_lane(port) end}]
    else
      []
    end
  end

  defp c_lane(port) do
    Port.command(port, "\n")

    receive do
      {^port, {:data, {:eol, line}}} ->
        [tokens, seconds] = String.split(line)
        {String.to_integer(tokens), String.to_float(seconds), []}
    end
  end

  # Each lane: {tokens after the first, seconds after the first, [ms between tokens]}.

  defp run_lane(c) do
    opts = [return_timing: true, profile_timing: true] ++ c.opts
    result = TextGeneration.run(c.tokenizer, c.model, c.prompt, opts)
    of_gaps(result.timing.per_token_ms)
  end

  defp stream_lane(c) do
    opts = [stream_chunking: :token, stream_host_sync: :per_token] ++ c.opts

    of_times(fn tick ->
      TextGeneration.stream(c.tokenizer, c.model, c.prompt, fn _ -> tick.() end, opts)
    end)
  end

  defp serving_lane(c) do
    result = Serving.run!(c.serving, c.prompt, return_timing: true)
    [%{num_tokens: n}] = result.results
    {n - 1, (result.timing.total_ms - result.timing.prefill_ms) / 1.0e3, []}
  end

  defp clients_lane(c, n) do
    tasks =
      for _ <- 1..n do
        Task.async(fn ->
          opts = [stream_chunking: :token, stream_host_sync: :per_token]

          of_times(fn tick ->
            c.serving |> Serving.stream(c.prompt, opts) |> Enum.each(fn _ -> tick.() end)
          end)
        end)
      end

    parts = Task.await_many(tasks, :infinity)

    {Enum.sum(for {tokens, _, _} <- parts, do: tokens), Enum.max(for {_, s, _} <- parts, do: s),
     Enum.flat_map(parts, &elem(&1, 2))}
  end

  # One chunk per token, except for tokens that end inside a character.
  defp of_times(fun) do
    me = self()
    tick = fn -> send(me, {:tick, System.monotonic_time(:microsecond)}) end
    fun.(tick)
    times = ticks([])

    of_gaps(
      Enum.zip_with(times, Enum.drop(times, 1), fn before, next -> (next - before) / 1.0e3 end)
    )
  end

  defp ticks(times) do
    receive do
      {:tick, time} -> ticks([time | times])
    after
      0 -> Enum.reverse(times)
    end
  end

  defp of_gaps(gaps), do: {length(gaps), Enum.sum(gaps) / 1.0e3, gaps}

  defp row(name, results, beside) do
    speeds = for {tokens, seconds, _} <- results, seconds > 0, do: tokens / seconds
    ratios = for {{n, s, _}, {m, r, _}} <- Enum.zip(results, beside), do: n / s / (m / r)
    gaps = results |> Enum.flat_map(&elem(&1, 2)) |> Enum.sort()
    tokens = results |> Enum.map(&elem(&1, 0)) |> Enum.max()
    [speed, ratio] = for list <- [speeds, ratios], do: list |> Enum.sort() |> at(0.5)
    [p50, p95] = for share <- [0.5, 0.95], do: at(gaps, share)
    numbers = Enum.map([speed, p50, p95], &round2/1) ++ [tokens, ratio && round2(ratio)]
    "| #{Enum.join([name | numbers], " | ")} |"
  end

  defp at([], _share), do: nil
  defp at(sorted, share), do: Enum.at(sorted, trunc((length(sorted) - 1) * share))

  defp round2(nil), do: "-"
  defp round2(number), do: :erlang.float_to_binary(number / 1, decimals: 3)
end
