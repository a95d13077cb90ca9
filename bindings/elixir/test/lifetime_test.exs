# SPDX-License-Identifier: Apache-2.0
defmodule Quern.LifetimeTest do
  # Processes that die, resources collected in any order, code replacement, a node that stops.
  use Quern.TestCase, async: false

  alias Quern.{
    Device,
    Generation,
    Linear,
    Model,
    Native,
    Session,
    Tensor,
    TextGeneration,
    Tokenizer
  }

  # Objects kept by other tests in this VM (shared models and devices) exist before and after.
  setup do
    _ = {model(), tokenizer(), Device.default(:ref)}
    :erlang.garbage_collect()
    Process.sleep(50)
    %{before: Quern.counts()}
  end

  defp back_to(before), do: eventually(fn -> Quern.counts() == before end, 1000)

  defp in_process(fun) do
    {pid, monitor} = spawn_monitor(fun)
    assert_receive {:DOWN, ^monitor, _, ^pid, reason}, 60_000
    reason
  end

  test "a process that ends leaves nothing behind", %{before: before} do
    in_process(fn ->
      device = Device.open!(:cpu, threads: 2)
      model = Model.load!(demo(), device: device)
      session = Session.new(model, n_ctx: 64)
      tokenizer = Tokenizer.load!(demo())
      generation = Generation.new(session, "Once", tokenizer: tokenizer)
      {_, _, _} = Generation.next(generation)
      Linear.pack(Tensor.zeros({64, 64}, :f32, device: device))
      assert Quern.counts() != before
    end)

    back_to(before)
  end

  test "objects may be freed in any order", %{before: before} do
    for _ <- 1..20 do
      in_process(fn ->
        device = Device.open!(:cpu, threads: 1)
        model = Model.load!(demo(), device: device)
        session = Session.new(model, n_ctx: 64)
        tokenizer = Tokenizer.load!(demo())
        generation = Generation.new(session, "Once", tokenizer: tokenizer)
        objects = Enum.shuffle([device, model, session, tokenizer, generation])
        Enum.each(objects, &Quern.free/1)
        Enum.each(objects, &Quern.free/1)
        assert_raise ArgumentError, ~r/freed/, fn -> Generation.next(generation) end
        assert_raise ArgumentError, ~r/freed/, fn -> Session.new(model) end
      end)
    end

    back_to(before)
  end

  test "what a job has is there until it is done", %{before: before} do
    in_process(fn ->
      size = 1_000_000
      binary = :crypto.strong_rand_bytes(4 * size)

      for _ <- 1..20 do
        tensor = Tensor.from_binary(binary, :f32, {size})
        ref = make_ref()
        :ok = Quern.Nif.tensor_to_binary(ref, tensor.ref)
        Quern.free(tensor)
        assert_receive {^ref, {:ok, ^binary}}
      end
    end)

    back_to(before)
  end

  test "processes that are killed while they compute, and while they load", %{before: before} do
    for round <- 1..4 do
      pids =
        for i <- 1..16 do
          spawn(fn ->
            case rem(i, 4) do
              0 ->
                TextGeneration.run(tokenizer(), model(), "Once upon a time", max_new_tokens: 400)

              1 ->
                TextGeneration.stream(tokenizer(), model(), "Once", max_new_tokens: 400)
                |> Enum.each(& &1)

              2 ->
                churn()

              3 ->
                Model.load!(demo())
            end
          end)
        end

      Process.sleep(round * 11)
      Enum.each(pids, &Process.exit(&1, :kill))
    end

    back_to(before)

    assert %{finish_reason: _} =
             TextGeneration.run(tokenizer(), model(), "Once", max_new_tokens: 3)
  end

  defp churn do
    hidden = Tensor.from_binary(floats(List.duplicate(1.0, 64)), :f32, {1, 1, 64})
    weight = Tensor.zeros({64, 64}, :f32)
    _ = Native.attention_residual(hidden, hidden, Linear.pack(weight))
    churn()
  end

  test "a killed caller's work stops with its turn" do
    # A forward pass of 4,096 tokens takes long; another caller gets a turn between two tokens.
    {:ok, t, m} =
      Tensor.load(data("primitives/case0.safetensors"), metadata: ~w(hidden kv_heads head_dim))

    [hidden, kv_heads, head_dim] =
      for key <- ~w(hidden kv_heads head_dim), do: String.to_integer(m[key])

    layer = ~w(norm1 norm2 q_norm k_norm q_proj k_proj v_proj o_proj gate_proj up_proj down_proj)
    layers = List.duplicate(layer |> Enum.map(&t[&1]) |> List.to_tuple(), 24)

    caches =
      for _ <- 1..24,
          do:
            {Tensor.zeros({1, kv_heads, 4096, head_dim}, :f32),
             Tensor.zeros({1, kv_heads, 4096, head_dim}, :f32)}

    values = for _ <- 1..(200 * hidden), do: :rand.normal()
    embedding = Tensor.from_binary(floats(values), :f32, {200, hidden})
    ids = Tensor.from_binary(<<1::32-native>>, :u32, {1, 1})

    pid =
      spawn(fn ->
        Native.forward_greedy_chunk_dense(
          ids,
          embedding,
          layers,
          caches,
          t["norm1"],
          embedding,
          0,
          4096,
          0.3,
          head_dim,
          1.0e4,
          1.0e-6
        )
      end)

    Process.sleep(30)
    assert Tensor.to_binary(ids) == <<1::32-native>>
    assert Process.alive?(pid)
    Process.exit(pid, :kill)
    Process.sleep(20)
    {k, _} = hd(caches)
    state = sha256(Tensor.to_binary(k))
    Process.sleep(30)
    assert sha256(Tensor.to_binary(k)) == state
  end

  test "a storm of small objects does not grow the VM", %{before: before} do
    storm = fn ->
      in_process(fn ->
        for _ <- 1..3000 do
          tensor = Tensor.from_binary(:binary.copy(<<1>>, 40_000), :f32, {100, 100}, wrap: true)
          Tensor.reshape(tensor, {10_000})
          Tensor.zeros({5000}, :f32)
        end
      end)

      back_to(before)
    end

    storm.()
    settled = rss()
    for _ <- 1..3, do: storm.()
    # Without freeing, 9,000 of them would hold 540 MB.
    assert rss() - settled < 60_000
  end

  # In KB.
  defp rss do
    [_, kb] = Regex.run(~r/VmRSS:\s+(\d+) kB/, File.read!("/proc/self/status"))
    String.to_integer(kb)
  end

  test "code is replaced under what computes", %{before: before} do
    task =
      Task.async(fn ->
        TextGeneration.run(tokenizer(), model(), "Once",
          max_new_tokens: 300,
          seed: 1,
          ignore_eos: true
        )
      end)

    {_, binary, file} = :code.get_object_code(Quern.Nif)

    for _ <- 1..3 do
      Process.sleep(10)
      :code.soft_purge(Quern.Nif)
      {:module, Quern.Nif} = :code.load_binary(Quern.Nif, file, binary)
    end

    :code.purge(Quern.Nif)
    assert %{results: [%{num_tokens: 300}]} = Task.await(task, 60_000)
    assert Quern.Nif.version() == Quern.version()
    back_to(before)
  end

  # In a separate node: to the VM the reloaded module is a new one, which does not recognize objects of the first.
  test "code is deleted under what it opens" do
    {output, status} =
      elixir("""
      for _ <- 1..5 do
        {_, binary, file} = :code.get_object_code(Quern.Nif)
        tensor = Quern.Tensor.zeros({3}, :f32, device: Quern.Device.open!())
        ref = make_ref()
        :ok = Quern.Nif.tokenizer_open(ref, #{inspect(demo())})
        :code.delete(Quern.Nif)
        :code.purge(Quern.Nif)
        {:ok, _} = receive(do: ({^ref, answer} -> answer))
        :erlang.garbage_collect()
        Process.sleep(20)
        {:module, Quern.Nif} = :code.load_binary(Quern.Nif, file, binary)
        try do
          Quern.Tensor.to_binary(tensor)
        rescue
          error in ArgumentError -> IO.puts(error.message)
        end
      end
      """)

    assert {String.split(output, "\n", trim: true), status} ==
             {List.duplicate("tensor: must be a tensor, got a reference", 5), 0}
  end

  test "a node stops in the middle, in every way" do
    for stop <- [
          "System.halt(0)",
          "System.stop(0); Process.sleep(:infinity)",
          "Application.stop(:quern); System.halt(0)",
          "System.cmd(\"kill\", [\"-TERM\", System.pid()]); Process.sleep(:infinity)"
        ] do
      code = """
      model = Quern.Model.load!(#{inspect(demo())})
      tokenizer = Quern.Tokenizer.load!(#{inspect(demo())})
      for _ <- 1..4 do
        spawn(fn -> Quern.TextGeneration.run(tokenizer, model, "Once", max_new_tokens: 500, ignore_eos: true) end)
      end
      spawn(fn -> Quern.Model.load!(#{inspect(demo())}) end)
      Process.sleep(60)
      IO.puts("stopping")
      #{stop}
      """

      {output, status} = elixir(code)
      assert output =~ "stopping", output
      refute output =~ ~r/Segmentation|Sanitizer|core dumped|Abort/
      assert status == 0, "#{stop}: #{status}: #{output}"
    end
  end

  defp elixir(code) do
    paths =
      for path <- :code.get_path(),
          String.contains?(to_string(path), "quern"),
          do: ["-pa", to_string(path)]

    arguments =
      List.flatten(paths) ++ ["-e", "Application.ensure_all_started(:quern)", "-e", code]

    System.cmd("elixir", arguments, stderr_to_stdout: true, env: [{"ERL_CRASH_DUMP_SECONDS", "0"}])
  end
end
