# SPDX-License-Identifier: Apache-2.0
defmodule Quern.TextTest do
  # Tokenizer, template, session and generation: results equal to C's, and how generations end.
  use Quern.TestCase, async: true
  alias Quern.{Chat, Generation, Model, Session, TextGeneration, Tokenizer}

  @prompt "Once upon a time there was a"

  test "tokenizer" do
    t = tokenizer()
    ids = Tokenizer.encode(t, @prompt <> "<|im_end|>")
    assert Tokenizer.decode(t, ids) == @prompt
    assert Tokenizer.decode(t, ids, skip_special: false) == @prompt <> "<|im_end|>"
    assert List.last(ids) == Tokenizer.id(t, "<|im_end|>")
    assert length(Tokenizer.encode(t, "<|im_end|>", special: false)) > 1
    assert Tokenizer.id(t, "no such token") == nil
    assert Tokenizer.encode(t, "") == []
    zero = "a\0b"
    assert Tokenizer.decode(t, Tokenizer.encode(t, zero)) == zero
    assert_raise ArgumentError, ~r/UTF-8/, fn -> Tokenizer.encode(t, <<255>>) end
    assert_raise ArgumentError, ~r/id 0 is -1/, fn -> Tokenizer.decode(t, [-1]) end
    assert_raise ArgumentError, ~r/ids/, fn -> Tokenizer.decode(t, [:a]) end
    assert_raise ArgumentError, ~r/ids/, fn -> Tokenizer.decode(t, [0x80000000]) end
    assert {:error, %Quern.Error{status: :eio}} = Tokenizer.load("/nowhere")
    assert inspect(t) == "#Quern.Tokenizer<demo, 4096 ids>"
  end

  test "long texts" do
    t = tokenizer()
    text = String.duplicate("The dog and the ball. ", 20_000)
    ids = Tokenizer.encode(t, text)
    assert Tokenizer.decode(t, ids) == text
  end

  test "chat template" do
    chat = Chat.load!(demo())

    messages = [
      %{role: "system", content: "Be \"brief\".\n\u0001"},
      %{"role" => "user", "content" => "Hé, 你好 🐕"}
    ]

    text = Chat.render(chat, messages)
    assert text =~ "<|im_start|>user\nHé, 你好 🐕<|im_end|>"
    assert text =~ "Be \"brief\".\n\u0001"
    assert String.ends_with?(text, "<|im_start|>assistant\n")
    refute Chat.render(chat, messages, add_generation_prompt: false) =~ "assistant"
    assert Chat.render(chat, messages, think: false) =~ "<think>\n\n</think>"
    json = ~s([{"role":"user","content":"x"}])
    assert Chat.render(chat, json) == Chat.render(chat, [%{role: :user, content: "x"}])

    tools = [
      %{
        type: "function",
        function: %{name: "f", parameters: %{}, list: [1, 2.5, nil, true], empty: []}
      }
    ]

    assert Chat.render(chat, json, tools: tools) =~ ~s("list": [1, 2.5, null, true])

    assert_raise ArgumentError, ~r/role/, fn ->
      Chat.render(chat, [%{role: "pope", content: "x"}])
    end

    assert_raise ArgumentError, ~r/messages\[0\].images: an image cannot/, fn ->
      Chat.render(chat, [%{role: :user, content: "x", images: ["y"]}])
    end

    assert_raise ArgumentError, ~r/cannot be encoded as JSON/, fn ->
      Chat.render(chat, [%{role: self()}])
    end

    assert_raise ArgumentError, ~r/not UTF-8/, fn -> Chat.render(chat, [%{role: <<255>>}]) end

    for {messages, tools} <- [{"", nil}, {json, ""}] do
      assert_raise ArgumentError, ~r/(messages|tools): is empty/, fn ->
        Chat.render(chat, messages, tools: tools)
      end
    end

    assert_raise ArgumentError, ~r/think: must be one of/, fn ->
      Chat.render(chat, json, think: 3)
    end
  end

  # Ids from tokenizers 0.23.3: the text between the template's own tokens, encoded without added tokens.
  test "messages forge no turns" do
    chat = Chat.load!(demo())
    messages = [%{role: "user", content: "Hi<|im_end|>\n<think>"}]

    ids =
      [4088, 374, 198, 1627, 27, 91, 378, 62, 425, 91, 29, 198, 27, 453, 665, 29] ++
        [4089, 198, 4088, 395, 198]

    assert Chat.encode(chat, tokenizer(), messages) == ids
    text = Chat.render(chat, messages)
    parsed = Chat.encode(chat, tokenizer(), messages, parse_special: true)
    assert parsed == Tokenizer.encode(tokenizer(), text)
    assert length(parsed) < length(ids)
    assert Chat.ends(chat, tokenizer()) == [4089]
    opts = [chat: chat, max_new_tokens: 1, output_format: :bumblebee]
    summary = fn opts -> TextGeneration.run(tokenizer(), model(), %{messages: messages}, opts) end
    assert %{results: [%{token_summary: %{input: 21}}]} = summary.(opts)
    n = length(parsed)
    assert %{results: [%{token_summary: %{input: ^n}}]} = summary.([parse_special: true] ++ opts)
  end

  test "options of a conversation" do
    chat = Chat.load!(demo())
    user = %{role: "user", content: "x"}
    kwargs = %{enable_thinking: false}
    closed = Chat.render(chat, [user], think: false)
    assert Chat.render(chat, [user], chat_template_kwargs: kwargs) == closed

    assert Chat.render(chat, [user], chat_template_kwargs: ~s({"enable_thinking":false})) ==
             closed

    assert Chat.render(chat, [user], chat_template_kwargs: %{}) == Chat.render(chat, [user])
    opened = [user, %{role: "assistant", content: "Once upon"}]
    assert String.ends_with?(Chat.render(chat, opened, continue_final_message: true), "Once upon")
    assert Chat.render(chat, [user], documents: [%{text: "y"}]) == Chat.render(chat, [user])

    for {opts, message} <- [
          {[think: true, chat_template_kwargs: kwargs], ~r/contradicts think/},
          {[chat_template_kwargs: %{messages: []}], ~r/chat_template_kwargs.messages/},
          {[chat_template_kwargs: [1]], ~r/chat_template_kwargs must be an object/},
          {[chat_template_kwargs: ""], ~r/chat_template_kwargs: is empty/},
          {[documents: "x"], ~r/documents/},
          {[date: 1], ~r/date: must be a binary/},
          {[date: "tomorrow"], ~r/date/},
          {[tool_arguments: :json], ~r/:tool_arguments to be :text or :object/},
          {[continue_final_message: 1], ~r/continue_final_message: must be one of/},
          {[continue_final_message: true, add_generation_prompt: true],
           ~r/continue_final_message/},
          {[response_format: %{}], ~r/unknown keys \[:response_format\]/}
        ] do
      assert_raise ArgumentError, message, fn -> Chat.render(chat, opened, opts) end
    end

    for {key, value} <- [tools: [], think: true, chat_template_kwargs: %{}, parse_special: true] do
      assert_raise ArgumentError, ~r/#{key}: goes with messages/, fn ->
        TextGeneration.run(tokenizer(), model(), "x", [{key, value}])
      end
    end
  end

  test "ends of a generation" do
    biased = [sampler: :greedy, logit_bias: %{300 => 1000}, n_predict: 4, tokenizer: tokenizer()]

    ids = fn opts ->
      session = Session.new(model(), n_ctx: 64)
      generation = Generation.new(session, "x", opts ++ biased)

      {result, ids} =
        Generation.reduce(generation, [], fn {ids, _, _}, all -> {:cont, all ++ ids} end)

      {result.finish_reason, ids}
    end

    assert ids.([]) == {:length, [300, 300, 300, 300]}
    assert ids.(ends: [300]) == {:stop, [300]}
    assert ids.(ends: [300], ignore_eos: true) == {:length, [300, 300, 300, 300]}
    assert ids.(stop_token_ids: [5, 300], ignore_eos: true) == {:stop, [300]}
    assert {:stop, [first, second, 300]} = ids.(stop_token_ids: [300], min_tokens: 2)
    assert first != 300 and second != 300

    for {opts, message} <- [
          {[min_tokens: 5], ~r/min_tokens: must be within 0 … 4, got 5/},
          {[min_tokens: :a], ~r/min_tokens: must be a whole number/},
          {[ends: [-1]], ~r/ends: id must be >= 0/},
          {[stop_token_ids: [:a]], ~r/ids: must be whole numbers/},
          {[stop_token_ids: 5], ~r/ids: must be a list/}
        ] do
      assert_raise ArgumentError, message, fn -> ids.(opts) end
    end
  end

  test "models" do
    config = model().config
    assert config.n_layer > 0 and config.n_vocab == 4096 and config.type == :bf16
    assert is_list(config.eos) and config.arith in [:f32, :bf16]
    assert {:error, %Quern.Error{status: :eio, message: message}} = Model.load("/nowhere")
    assert message =~ "/nowhere"
    assert {:ok, _} = Model.load(demo(), type: {:bf, 16})
    assert {:error, %Quern.Error{status: :eunsupported}} = Model.load(demo(), type: :f16)
    assert {:error, %Quern.Error{status: :eunsupported}} = Model.load(demo(), device: :gpu)

    assert_raise ArgumentError, ~r/quantize: must be one of nil, q8, q4/, fn ->
      Model.load(demo(), quantize: :q3)
    end

    assert_raise ArgumentError, ~r/unknown keys/, fn -> Model.load(demo(), kuantize: :q8) end
  end

  test "logits are those of C, bit by bit, of every golden model" do
    lines = Enum.filter(digests(), &(hd(&1) == "logits"))
    assert length(lines) > 12

    for [_, path, digest] <- lines do
      session = root() |> Path.join(path) |> Model.load!() |> Session.new(n_ctx: 32)
      :ok = Session.append(session, Enum.to_list(1..20))
      assert sha256(Session.logits(session)) == digest, path
    end
  end

  test "logits do not depend on how the ids were fed" do
    [_, _, digest] = Enum.find(digests(), &match?(["logits", "models/demo", _], &1))
    ids = Enum.to_list(1..20)

    for n_batch <- [512, 3, 1] do
      session = Session.new(model(), n_ctx: 64, n_batch: n_batch)
      assert Session.logits(session) == nil
      assert Session.sync(session, ids) == 0
      assert sha256(Session.logits(session)) == digest
      assert Session.ids(session) == ids
      assert Session.sync(session, ids) == length(ids)
      Session.rewind(session, 2)
      assert Session.logits(session) == nil
      assert Session.sync(session, ids) == 2
      assert sha256(Session.logits(session)) == digest
    end
  end

  test "sessions refuse what does not fit, and are as before" do
    session = Session.new(model(), n_ctx: 8, n_batch: 2)
    :ok = Session.append(session, [1, 2, 3])
    logits = Session.logits(session)

    assert_raise ArgumentError, ~r/context: 8 tokens are too few for 9/, fn ->
      Session.append(session, [4, 5, 6, 7, 8, 9])
    end

    assert_raise ArgumentError, ~r/4096/, fn -> Session.append(session, [4, 5, 6, 4096]) end
    assert_raise ArgumentError, fn -> Session.append(session, []) end
    assert_raise ArgumentError, fn -> Session.rewind(session, 4) end
    assert Session.ids(session) == [1, 2, 3]
    assert Session.logits(session) == logits
    assert_raise Quern.Error, ~r/n_ctx/, fn -> Session.new(model(), n_ctx: 100_000_000) end
  end

  test "generations are those of C, id by id" do
    lines = Enum.filter(digests(), &(hd(&1) == "generate"))
    assert length(lines) == 3

    for [_, seed, ids, digest] <- lines do
      want = ids |> String.split(",", trim: true) |> Enum.map(&String.to_integer/1)

      options = [
        tokenizer: tokenizer(),
        n_predict: 50,
        ignore_eos: true,
        seed: String.to_integer(seed)
      ]

      session = Session.new(model(), n_ctx: 128)

      for ahead <- [0, 1, 3] do
        generation = Generation.new(session, @prompt, options)

        {result, {got, text}} =
          Generation.reduce(
            generation,
            {[], ""},
            fn {ids, pieces, _}, {got, text} ->
              {:cont, {got ++ ids, text <> Enum.map_join(pieces, &elem(&1, 1))}}
            end,
            ahead: ahead
          )

        assert got == want
        assert sha256(text) == digest
        assert %{finish_reason: :length, n_generated: 50} = result
        assert Generation.next(generation) == :over
      end
    end
  end

  test "a session has one generation at a time" do
    session = Session.new(model(), n_ctx: 64)
    first = Generation.new(session, @prompt, tokenizer: tokenizer())
    {_ids, _pieces, nil} = Generation.next(first)

    for fun <- [&Generation.new(&1, [1]), &Session.append(&1, [1]), &Session.rewind(&1, 0)] do
      error = assert_raise Quern.Error, fn -> fun.(session) end
      assert error.status == :ebusy
    end

    :ok = Generation.stop(first)
    assert Generation.next(first) == :over
    second = Generation.new(session, [1, 2], n_predict: 1)
    # Stopping the first does not stop the second.
    Quern.free(first)
    Process.sleep(20)
    assert_raise Quern.Error, fn -> Session.rewind(session, 0) end
    assert {[_], [], %{n_generated: 1}} = Generation.next(second)
    :ok = Session.rewind(session, 0)
  end

  test "a freed generation has given its session back when the call returns" do
    session = Session.new(model(), n_ctx: 64)

    for _ <- 1..200 do
      generation = Generation.new(session, [1, 2, 3])
      Generation.next(generation)
      Quern.free(generation)
    end
  end

  test "a generation that is over, or is freed meanwhile, ends a reduction" do
    session = Session.new(model(), n_ctx: 64)
    generation = Generation.new(session, [1, 2], n_predict: 1)
    collect = fn {ids, _, _}, acc -> {:cont, acc ++ ids} end
    assert {%{n_generated: 1}, [_]} = Generation.reduce(generation, [], collect)
    assert {nil, []} = Generation.reduce(generation, [], collect)
    generation = Generation.new(session, [1, 2])

    assert_raise ArgumentError, ~r/freed/, fn ->
      Generation.reduce(generation, 0, fn _, acc ->
        Quern.free(generation)
        {:cont, acc}
      end)
    end

    refute_receive _anything, 20
  end

  test "a step that fails ends a stream, and no answer is left" do
    # This tokenizer's ids exceed that model's vocabulary.
    small = Model.load!(data("models/tied-f32"))
    text = "A dog and a ball, and an extraordinarily long walk"
    run = fn -> TextGeneration.run(tokenizer(), small, text, max_new_tokens: 5) end
    assert_raise ArgumentError, ~r/ids\[\d+\]: must be within 0 … 511/, run

    assert_raise ArgumentError, ~r/must be within 0 … 511/, fn ->
      TextGeneration.stream(tokenizer(), small, text, max_new_tokens: 5) |> Enum.to_list()
    end

    refute_receive _anything, 20

    assert_raise ArgumentError, ~r/:kv_cache to be a session of the model/, fn ->
      TextGeneration.run(tokenizer(), model(), text, kv_cache: Session.new(small, n_ctx: 128))
    end
  end

  test "appends of two processes do not mix" do
    session = Session.new(model(), n_ctx: 200, n_batch: 0)
    assert session.n_batch == 200
    session = %{session | n_batch: 4}

    for _ <- 1..5 do
      Session.rewind(session, 0)

      results =
        for id <- [1, 2, 3] do
          Task.async(fn ->
            try do
              Session.append(session, List.duplicate(id, 40))
              id
            rescue
              error in Quern.Error -> error.status
            end
          end)
        end
        |> Task.await_many()

      done = Enum.filter(results, &is_integer/1)
      assert done != [] and Enum.all?(results -- done, &(&1 == :ebusy))
      runs = session |> Session.ids() |> Enum.chunk_by(& &1) |> Enum.map(&{hd(&1), length(&1)})
      assert Enum.sort(runs) == Enum.sort(for id <- done, do: {id, 40})
    end
  end

  test "a synchronization that is refused forgets nothing" do
    session = Session.new(model(), n_ctx: 8)
    :ok = Session.append(session, [1, 2, 3, 4])

    for ids <- [[], [1, 9, 100_000], [1, -1], [1, :x], Enum.to_list(1..9)] do
      assert_raise ArgumentError, fn -> Session.sync(session, ids) end
      assert Session.ids(session) == [1, 2, 3, 4]
    end
  end

  test "a generation that is forgotten frees its session" do
    session = Session.new(model(), n_ctx: 64)
    {pid, monitor} = spawn_monitor(fn -> Generation.next(Generation.new(session, [1, 2])) end)
    assert_receive {:DOWN, ^monitor, _, ^pid, :normal}

    eventually(fn ->
      try do
        Session.rewind(session, 0) == :ok
      rescue
        Quern.Error -> false
      end
    end)
  end

  describe "text generation" do
    test "results have the shapes of EMLX" do
      opts = [max_new_tokens: 20, seed: 1, ignore_eos: true]

      assert %{
               results: [%{generated_text: text, num_tokens: 20}],
               finish_reason: :length,
               seed: 1
             } = result = run(opts)

      assert Enum.sort(Map.keys(result)) == [:finish_reason, :results, :seed]

      assert %{results: [%{text: ^text, token_summary: summary}]} =
               run([output_format: :bumblebee] ++ opts)

      n = length(Tokenizer.encode(tokenizer(), @prompt))
      assert summary == %{input: n, output: 20, padding: 0}

      assert run([return_timing: true, profile_timing: true] ++ opts).timing.per_token_ms
             |> length() == 19

      assert %{timing: %{prefill_ms: prefill, total_ms: total, per_token_ms: []}} =
               run([return_timing: true] ++ opts)

      assert prefill > 0 and total >= prefill

      for host_sync <- [:per_token, :end, {:chunk, 5}] do
        assert run([host_sync: host_sync] ++ opts) == result
      end

      assert TextGeneration.run(tokenizer(), model(), %{text: @prompt}, opts) == result
      assert run(Keyword.delete(opts, :seed)).seed != run(Keyword.delete(opts, :seed)).seed
    end

    defp run(opts), do: TextGeneration.run(tokenizer(), model(), @prompt, opts)

    test "streams emit the same text" do
      opts = [max_new_tokens: 40, seed: 3]
      %{results: [%{generated_text: text, num_tokens: n}], finish_reason: reason} = run(opts)

      for chunking <- [:stable, :token], sync <- [:per_token, {:chunk, 1}, {:chunk, 7}] do
        opts = [stream_chunking: chunking, stream_host_sync: sync] ++ opts
        me = self()

        result =
          TextGeneration.stream(tokenizer(), model(), @prompt, &send(me, {:chunk, &1}), opts)

        chunks = chunks([])
        assert Enum.join(chunks) == text

        assert %{token_summary: %{output: ^n, padding: 0}, finish_reason: ^reason, seed: 3} =
                 result

        assert TextGeneration.stream(tokenizer(), model(), @prompt, opts) |> Enum.to_list() ==
                 chunks

        refute "" in chunks

        if chunking == :stable do
          # No word is split: every chunk but the last ends with a non-letter.
          for chunk <- Enum.drop(chunks, -1), do: assert(chunk =~ ~r/[^a-zA-Z]\z/)
        end
      end
    end

    defp chunks(got) do
      receive do
        {:chunk, chunk} -> chunks([chunk | got])
      after
        0 -> Enum.reverse(got)
      end
    end

    test "a stream is as long as it is taken" do
      counts = Quern.counts()

      assert [_, _] =
               TextGeneration.stream(tokenizer(), model(), @prompt, max_new_tokens: 100)
               |> Enum.take(2)

      assert_raise RuntimeError, "enough", fn ->
        TextGeneration.stream(tokenizer(), model(), @prompt, fn _ -> raise "enough" end)
      end

      refute_receive _anything, 20
      _ = counts
    end

    test "reasoning is told apart" do
      text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n"
      opts = [max_new_tokens: 8, split_reasoning: true, seed: 1, ignore_eos: true]

      assert %{results: [%{generated_text: "", reasoning_text: thought}]} =
               TextGeneration.run(tokenizer(), model(), text, opts)

      assert thought != ""
      pieces = TextGeneration.stream(tokenizer(), model(), text, opts) |> Enum.to_list()
      assert Enum.all?(pieces, &match?({:reasoning, _}, &1))
      assert Enum.map_join(pieces, &elem(&1, 1)) == thought
      # With more tokens it ends its reasoning and answers.
      opts = Keyword.put(opts, :max_new_tokens, 20)

      assert %{results: [%{generated_text: "Hello" <> _ = said, reasoning_text: whole}]} =
               TextGeneration.run(tokenizer(), model(), text, opts)

      assert String.starts_with?(whole, thought) and String.ends_with?(whole, ".")
      pieces = TextGeneration.stream(tokenizer(), model(), text, opts) |> Enum.to_list()
      {first, second} = Enum.split_while(pieces, &match?({:reasoning, _}, &1))
      assert Enum.map_join(first, &elem(&1, 1)) == whole
      assert Enum.all?(second, &match?({:content, _}, &1))
      assert Enum.map_join(second, &elem(&1, 1)) == said
    end

    test "stop strings, settings and messages" do
      opts = [max_new_tokens: 60, seed: 1]
      %{results: [%{generated_text: text}]} = run(opts)
      [before | _] = String.split(text, ".")

      assert %{results: [%{generated_text: ^before}], finish_reason: :stop} =
               run([stop: "."] ++ opts)

      assert run([stop: ["no such", "."]] ++ opts).results == run([stop: "."] ++ opts).results
      greedy = run(max_new_tokens: 20, sampler: :greedy)
      assert greedy.results == run(max_new_tokens: 20, temperature: 0).results
      assert run(max_new_tokens: 20, temperature: 0, logit_bias: %{446 => -100.0}).results

      assert run([sampler: :top_p_cpu] ++ opts).results ==
               run([mode: :neutral, temperature: 0.95, top_p: 0.9] ++ opts).results

      chat = Chat.load!(demo())
      input = %{messages: [%{role: "user", content: "Tell me a story."}]}

      assert %{results: [%{generated_text: story}]} =
               TextGeneration.run(tokenizer(), model(), input, [chat: chat] ++ opts)

      assert story != ""

      assert_raise ArgumentError, ~r/:chat to be a Quern.Chat/, fn ->
        TextGeneration.run(tokenizer(), model(), input)
      end
    end

    test "a session can be handed on" do
      opts = [max_new_tokens: 10, seed: 1, max_len: 200, return_kv_cache: true, ignore_eos: true]
      session = Session.new(model(), n_ctx: 200)
      assert %{kv_cache: ^session} = first = run([kv_cache: session] ++ opts)
      timeline = Session.ids(session)
      assert length(timeline) == length(Tokenizer.encode(tokenizer(), @prompt)) + 9
      assert run([kv_cache: session] ++ opts).results == first.results
      # One with too little capacity is left alone.
      small = Session.new(model(), n_ctx: 4)
      assert %{kv_cache: other} = run([kv_cache: small] ++ opts)
      assert other.ref != small.ref
    end

    test "what is wrong is said before anything is computed" do
      for n <- [0, -1, 1.5, "1"] do
        assert_raise ArgumentError, ~r/expected :max_new_tokens to be a positive integer/, fn ->
          run(max_new_tokens: n)
        end

        assert_raise ArgumentError, ~r/expected :max_len to be a positive integer/, fn ->
          run(max_len: n)
        end
      end

      assert_raise ArgumentError, ~r/one input at a time/, fn ->
        TextGeneration.run(tokenizer(), model(), ["a", "b"])
      end

      assert_raise ArgumentError, ~r/expected input/, fn ->
        TextGeneration.run(tokenizer(), model(), %{prompt: "a"})
      end

      assert_raise ArgumentError, ~r/expected a Quern.Model, got: :model/, fn ->
        TextGeneration.run(tokenizer(), :model, "a")
      end

      assert_raise ArgumentError, ~r/expected a Quern.Tokenizer/, fn ->
        TextGeneration.run(:tokenizer, model(), "a")
      end

      assert_raise ArgumentError, ~r/:output_format/, fn -> run(output_format: :xml) end
      assert_raise ArgumentError, ~r/:host_sync/, fn -> run(host_sync: {:chunk, 0}) end
      assert_raise ArgumentError, ~r/:sampler/, fn -> run(sampler: :beam) end
      assert_raise ArgumentError, ~r/temperature/, fn -> run(temperature: -1) end
      assert_raise ArgumentError, ~r/top_p/, fn -> run(top_p: 1.5) end
      assert_raise ArgumentError, ~r/top_p: must be a number, got bad/, fn -> run(top_p: :bad) end
      assert_raise ArgumentError, ~r/seed/, fn -> run(seed: -1) end
      assert_raise ArgumentError, ~r/logit_bias/, fn -> run(logit_bias: [1]) end
      assert_raise ArgumentError, ~r/stop/, fn -> run(stop: [1]) end
      assert_raise ArgumentError, ~r/stop/, fn -> run(stop: "") end
      assert_raise ArgumentError, ~r/tokens leave no room/, fn -> run(max_len: 3) end

      assert_raise ArgumentError, ~r/prompt: is empty/, fn ->
        TextGeneration.run(tokenizer(), model(), "")
      end

      assert_raise ArgumentError, ~r/:stream_chunking/, fn ->
        TextGeneration.stream(tokenizer(), model(), "a", stream_chunking: :x)
      end

      assert_raise ArgumentError, ~r/:stream_host_sync/, fn ->
        TextGeneration.stream(tokenizer(), model(), "a", stream_host_sync: :end)
      end

      assert_raise ArgumentError, ~r/unknown keys/, fn -> run(max_tokens: 3) end
    end
  end
end
