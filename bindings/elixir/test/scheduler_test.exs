# SPDX-License-Identifier: Apache-2.0
defmodule Quern.SchedulerTest do
  # Schedulers are not blocked: measures the largest lateness of a 1 ms timer on any scheduler, with and without load.
  use Quern.TestCase, async: false
  alias Quern.{Nif, Tensor, TextGeneration}

  @moduletag timeout: 120_000

  # Alternating, best of up to ten of each: other load on the machine can keep a thread off its CPU for longer than the
  # bound tested here.
  test "with 8 generations, timers are late by at most 20 ms more than without" do
    {idle, busy} =
      Enum.reduce_while(1..10, {:infinity, :infinity}, fn round, {idle, busy} ->
        idle = min(idle, gap(fn -> :ok end, fn _ -> :ok end))
        busy = min(busy, gap(&generations/0, &stop/1))

        if round >= 3 and busy - idle <= 20,
          do: {:halt, {idle, busy}},
          else: {:cont, {idle, busy}}
      end)

    IO.puts("longest gap of a 1 ms timer: idle #{idle} ms, with 8 generations #{busy} ms")
    assert busy - idle <= 20
  end

  defp generations do
    for _ <- 1..8 do
      spawn(fn ->
        for _ <- Stream.cycle([1]) do
          TextGeneration.run(tokenizer(), model(), "Once upon a time",
            max_new_tokens: 400,
            ignore_eos: true
          )
        end
      end)
    end
  end

  defp stop(pids), do: Enum.each(pids, &Process.exit(&1, :kill))

  # In ms, measured over one second.
  defp gap(begin, finish) do
    state = begin.()
    Process.sleep(200)
    me = self()

    timers =
      for scheduler <- 1..:erlang.system_info(:schedulers_online) do
        :erlang.spawn_opt(fn -> send(me, {:gap, tick(now() + 1_000_000, now(), 0)}) end, [
          {:scheduler, scheduler}
        ])
      end

    gaps = for _ <- timers, do: receive(do: ({:gap, gap} -> gap))
    finish.(state)
    Process.sleep(100)
    Enum.max(gaps) / 1000
  end

  defp tick(till, last, worst) when last < till do
    Process.sleep(1)
    time = now()
    tick(till, time, max(worst, time - last))
  end

  defp tick(_till, _last, worst), do: worst

  defp now, do: System.monotonic_time(:microsecond)

  # A call submits its job to a worker and returns, however large its arguments are.
  test "no call of the NIF takes a millisecond of a scheduler" do
    binary = :binary.copy(<<0>>, 64_000_000)
    text = String.duplicate("The dog and the ball. ", 200_000)
    ids = :binary.copy(<<1::32-native>>, 100_000)
    device = Quern.Device.default().ref
    tensor = Tensor.zeros({1_000_000}, :f32)

    calls = [
      from_binary: &Nif.tensor_from_binary(&1, device, binary, :f32, [16_000_000], false),
      wrap: &Nif.tensor_from_binary(&1, device, binary, :f32, [16_000_000], true),
      zeros: &Nif.tensor_zeros(&1, device, :f32, [16_000_000]),
      to_binary: &Nif.tensor_to_binary(&1, tensor.ref),
      encode: &Nif.tokenizer_encode(&1, tokenizer().ref, text, true),
      decode: &Nif.tokenizer_decode(&1, tokenizer().ref, ids, true),
      load: &Nif.model_open(&1, device, demo(), {:auto, nil}),
      session: &Nif.session_new(&1, model().ref, {512, 512, nil, :auto})
    ]

    for {name, call} <- calls do
      times =
        for _ <- 1..8 do
          ref = make_ref()
          started = now()
          :ok = call.(ref)
          took = now() - started
          assert_receive {^ref, {:ok, _}}, 60_000
          took
        end

      # Best of several: a call may lose its CPU to the work of the previous one.
      assert Enum.min(times) < 1000, "#{name}: #{inspect(times)} us"
    end
  end
end
