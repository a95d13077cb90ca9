# SPDX-License-Identifier: Apache-2.0
defmodule Quern.ServingTest do
  use Quern.TestCase, async: false
  alias Quern.{Chat, Serving, TextGeneration}

  @prompt "Once upon a time there was a"

  defp start(opts) do
    opts = Keyword.merge([model: model(), tokenizer: tokenizer(), max_len: 300, seed: 1], opts)
    start_supervised!({Serving, opts}, id: make_ref())
  end

  defp quiet(serving),
    do: eventually(fn -> match?(%{active: 0, queued: 0}, Serving.stats(serving)) end)

  test "what is served is what is generated" do
    serving = start(max_new_tokens: 30, name: TestServing)
    assert serving == Process.whereis(TestServing)

    for opts <- [
          [],
          [max_new_tokens: 5],
          [output_format: :bumblebee],
          [seed: 7],
          [stop: "."],
          [sampler: :greedy]
        ] do
      want =
        TextGeneration.run(
          tokenizer(),
          model(),
          @prompt,
          Keyword.merge([max_new_tokens: 30, seed: 1], opts)
        )

      {:ok, got} = Serving.run(TestServing, @prompt, opts)
      assert Map.delete(got, :seed) == Map.delete(want, :seed)
    end

    opts = [max_new_tokens: 30, seed: 1]
    want = TextGeneration.stream(tokenizer(), model(), @prompt, opts) |> Enum.join()
    assert serving |> Serving.stream(@prompt) |> Enum.join() == want
    chat = Chat.load!(demo())

    assert {:ok, _} =
             Serving.run(serving, %{messages: [%{role: "user", content: "Hi"}]}, chat: chat)

    assert %{timing: %{total_ms: _}} = Serving.run!(serving, @prompt, return_timing: true)
    quiet(serving)
  end

  test "many at once, in turns: each gets its own text" do
    serving = start(sessions: 3, max_new_tokens: 40)

    tasks =
      for seed <- 1..12 do
        Task.async(fn ->
          if rem(seed, 2) == 0 do
            Serving.run!(serving, @prompt, seed: seed).results
            |> hd()
            |> Map.fetch!(:generated_text)
          else
            serving |> Serving.stream(@prompt, seed: seed) |> Enum.join()
          end
        end)
      end

    for {text, seed} <- Enum.zip(Task.await_many(tasks, 60_000), 1..12) do
      want = TextGeneration.run(tokenizer(), model(), @prompt, seed: seed, max_new_tokens: 40)
      assert [%{generated_text: ^text}] = want.results
    end

    quiet(serving)
  end

  test "a full queue is told at once" do
    serving = start(sessions: 1, max_queue: 1, window: 1)
    long = [max_new_tokens: 250, ignore_eos: true]
    # An unread stream pauses and keeps its session.
    {reader, _} = reading(serving, long)
    waiting = Task.async(fn -> Serving.run(serving, @prompt, max_new_tokens: 5) end)
    eventually(fn -> Serving.stats(serving) == %{active: 1, queued: 1, sessions: 1} end)

    assert {:error, %Quern.Error{status: :ebusy, message: message}} =
             Serving.run(serving, @prompt)

    assert message =~ "1 requests wait already"
    assert_raise Quern.Error, fn -> Serving.stream(serving, @prompt) |> Enum.to_list() end
    assert_raise Quern.Error, fn -> Serving.run!(serving, @prompt) end
    Process.exit(reader, :kill)
    assert {:ok, _} = Task.await(waiting)
    quiet(serving)
  end

  # A process that reads one chunk and then waits.
  defp reading(serving, opts) do
    me = self()

    pid =
      spawn(fn ->
        serving
        |> Serving.stream(@prompt, opts)
        |> Enum.each(fn chunk ->
          send(me, {:chunk, self(), chunk})
          receive do: (:more -> :ok)
        end)

        send(me, {:end, self()})
      end)

    assert_receive {:chunk, ^pid, chunk}, 5_000
    {pid, chunk}
  end

  test "a slow reader holds its own stream up, and no other" do
    serving = start(sessions: 2, window: 4)

    {reader, first} =
      reading(serving, max_new_tokens: 200, ignore_eos: true, stream_chunking: :token)

    {:ok, _} = Serving.run(serving, @prompt, max_new_tokens: 100)
    # At most the window plus what was buffered ahead.
    {:messages, messages} = Process.info(reader, :messages)
    assert length(messages) <= 5
    assert Serving.stats(serving).active == 1
    rest = drain(reader, [])
    whole = Enum.join([first | rest])

    want =
      TextGeneration.run(tokenizer(), model(), @prompt,
        max_new_tokens: 200,
        ignore_eos: true,
        seed: 1
      )

    assert [%{generated_text: ^whole}] = want.results
    quiet(serving)
  end

  defp drain(reader, chunks) do
    send(reader, :more)

    receive do
      {:chunk, ^reader, chunk} -> drain(reader, [chunk | chunks])
      {:end, ^reader} -> Enum.reverse(chunks)
    after
      5_000 -> flunk("the stream stopped")
    end
  end

  test "clients that die or leave give their session back" do
    serving = start(sessions: 2, max_queue: 20)

    for round <- 1..5 do
      pids =
        for _ <- 1..8 do
          spawn(fn -> Serving.run(serving, @prompt, max_new_tokens: 250, ignore_eos: true) end)
        end

      Process.sleep(round * 7)
      Enum.each(pids, &Process.exit(&1, :kill))
      assert [_] = serving |> Serving.stream(@prompt) |> Enum.take(1)

      assert {:error, %Quern.Error{status: :ecanceled}} =
               Serving.run(serving, @prompt, timeout: 1)

      quiet(serving)
    end

    assert {:ok, _} = Serving.run(serving, @prompt, max_new_tokens: 3)
    refute_receive _anything, 20
  end

  test "requests that are wrong are told, and nothing is lost" do
    serving = start(sessions: 1)

    assert_raise ArgumentError, ~r/one input at a time/, fn ->
      Serving.run(serving, ["a", "b"])
    end

    assert_raise ArgumentError, ~r/:max_new_tokens/, fn ->
      Serving.run(serving, "a", max_new_tokens: 0)
    end

    assert {:error, %Quern.Error{status: :einval, message: "temperature" <> _}} =
             Serving.run(serving, "a", temperature: -1)

    assert {:error, %Quern.Error{message: "stop" <> _}} = Serving.run(serving, "a", stop: [1])
    assert {:error, %Quern.Error{}} = Serving.run(serving, "a", top_p: :bad)

    assert_raise ArgumentError, ~r/no room/, fn ->
      Serving.run(serving, String.duplicate("dog ", 400))
    end

    assert {:ok, _} = Serving.run(serving, "a", max_new_tokens: 2)
    quiet(serving)

    for {opts, message} <- [
          {[sessions: 0], ~r/:sessions/},
          {[max_queue: -1], ~r/:max_queue/},
          {[max_len: 0], ~r/:max_len/},
          {[foo: 1], ~r/unknown keys/}
        ] do
      assert_raise ArgumentError, message, fn ->
        Serving.start_link([model: model(), tokenizer: tokenizer()] ++ opts)
      end
    end
  end

  test "names of every kind, and a name that is none" do
    name = {:global, {:quern, make_ref()}}
    start(name: name)
    assert {:ok, _} = Serving.run(name, "a", max_new_tokens: 2)
    assert name |> Serving.stream("a", max_new_tokens: 2) |> Enum.join() != ""
    assert {:noproc, _} = catch_exit(Serving.run(:nobody, "a"))
  end

  test "a stream that nobody reads ends after a while" do
    serving = start(sessions: 1, window: 1, stall_timeout: 50)
    {_reader, _} = reading(serving, max_new_tokens: 250, ignore_eos: true)
    assert {:ok, _} = Serving.run(serving, @prompt, max_new_tokens: 2)
    quiet(serving)
  end

  test "options that are not for requests are refused" do
    serving = start(sessions: 1)

    for key <- [:kv_cache, :return_kv_cache, :profile_timing, :kv_type, :n_batch] do
      assert_raise ArgumentError, ~r/#{key} is not an option/, fn ->
        Serving.run(serving, "a", [{key, true}])
      end
    end

    assert_raise ArgumentError, ~r/:kv_cache is not an option/, fn ->
      Serving.start_link(model: model(), tokenizer: tokenizer(), kv_cache: nil)
    end
  end

  test "callers of a serving that dies are told" do
    Process.flag(:trap_exit, true)
    {:ok, serving} = Serving.start_link(model: model(), tokenizer: tokenizer(), max_len: 300)

    task =
      Task.async(fn ->
        catch_exit(Serving.run(serving, @prompt, max_new_tokens: 250, ignore_eos: true))
      end)

    Process.sleep(20)
    Process.exit(serving, :kill)
    assert {:killed, _where} = Task.await(task)
    assert_receive {:EXIT, ^serving, :killed}
  end

  test "telemetry tells what happens" do
    Process.register(self(), :telemetry_test)
    serving = start(sessions: 1, name: Told, max_new_tokens: 10, ignore_eos: true)
    {:ok, _} = Serving.run(serving, @prompt)

    assert_receive {:event, [:quern, :serving, :request, :start], %{n_prompt: n, system_time: _},
                    %{serving: Told, id: id}}

    assert n > 0

    assert_receive {:event, [:quern, :serving, :request, :stop], measured,
                    %{id: ^id, finish_reason: :length}}

    assert %{
             duration: d,
             queue_time: q,
             n_generated: 10,
             n_prompt: ^n,
             prompt_s: _,
             generate_s: _,
             first_token_s: _
           } = measured

    assert d > 0 and q >= 0
    assert_receive {:event, [:quern, :serving, :queue], %{active: 0, queued: 0}, %{serving: Told}}
    {:error, _} = Serving.run(serving, @prompt, temperature: -1)

    assert_receive {:event, [:quern, :serving, :request, :exception], %{duration: _},
                    %{error: %Quern.Error{status: :einval}}}

    _ = serving |> Serving.stream(@prompt) |> Enum.take(1)
    assert_receive {:event, [:quern, :serving, :request, :stop], _, %{finish_reason: :canceled}}
  end
end
