# SPDX-License-Identifier: Apache-2.0
# Do generations block schedulers? The longest gap of a 1 ms timer on any scheduler, without load and with eight generations
# of a model, alternating, the median of ROUNDS one-second rounds each:
#     mix run bench/schedulers.exs MODEL [ROUNDS]
alias Quern.{Model, TextGeneration, Tokenizer}

defmodule Schedulers do
  def gap do
    me = self()

    for scheduler <- 1..:erlang.system_info(:schedulers_online) do
      timer = fn -> send(me, {:gap, tick(now() + 1_000_000, now(), 0)}) end
      :erlang.spawn_opt(timer, [{:scheduler, scheduler}])
    end
    |> Enum.map(fn _ -> receive(do: ({:gap, gap} -> gap)) end)
    |> Enum.max()
  end

  def median(list), do: list |> Enum.sort() |> Enum.at(div(length(list), 2))

  defp tick(till, last, worst) when last < till do
    Process.sleep(1)
    time = now()
    tick(till, time, max(worst, time - last))
  end

  defp tick(_till, _last, worst), do: worst

  defp now, do: System.monotonic_time(:microsecond)
end

{path, rounds} =
  case System.argv() do
    [path] -> {path, 5}
    [path, rounds] -> {path, String.to_integer(rounds)}
  end

[model, tokenizer] = [Model.load!(path), Tokenizer.load!(path)]
options = [max_new_tokens: 400, ignore_eos: true]

generate = fn ->
  for _ <- Stream.cycle([1]),
      do: TextGeneration.run(tokenizer, model, "Once upon a time", options)
end

gaps =
  for _ <- 1..rounds do
    idle = Schedulers.gap()
    pids = for _ <- 1..8, do: spawn(generate)
    Process.sleep(200)
    busy = Schedulers.gap()
    Enum.each(pids, &Process.exit(&1, :kill))
    Process.sleep(200)
    {idle, busy}
  end

{idle, busy} = Enum.unzip(gaps)
[idle, busy] = for gaps <- [idle, busy], do: Schedulers.median(gaps) / 1000
IO.puts("longest gap of a 1 ms timer: idle #{idle} ms, with 8 generations #{busy} ms")
