# SPDX-License-Identifier: Apache-2.0
defmodule Quern.TextGeneration do
  @moduledoc """
  Text generation for one caller, with the options and results of `EMLXAxon.TextGeneration`.

      model = Quern.Model.load!(path)
      tokenizer = Quern.Tokenizer.load!(path)
      Quern.TextGeneration.run(tokenizer, model, "Once upon a time")

  The input is a text, `%{text: text}`, or `%{messages: messages}` together with the option `:chat`.

  ## Options

    * those of `Quern.Sampler`. By default the model's own settings apply: Qwen3's makers advise against greedy decoding
    * `:max_new_tokens` - default 100
    * `:max_len` - limit for prompt and answer together; default the smaller of 2048 and the model's limit
    * `:stop` - a string or a list of strings that end the answer
    * `:ignore_eos` - continue after an end-of-text id
    * `:split_reasoning` - separate the text between `<think>` and `</think>`: results then have `:reasoning_text`, and
      streams emit `{:content, text}` and `{:reasoning, text}`
    * `:stop_token_ids`, `:min_tokens` - see `Quern.Generation.new/3`
    * `:chat`, and the options of `Quern.Chat.encode/4` - for messages. Answers to messages also end at the ids of
      `Quern.Chat.ends/2`
    * `:output_format` - `:native` (default): `%{generated_text: text, num_tokens: n}`; `:bumblebee`: `%{text: text,
      token_summary: %{input: n, output: n, padding: 0}}`
    * `:kv_type`, `:n_batch` - as in `Quern.Session.new/2`
    * `:kv_cache` - a `Quern.Session` of the model to continue, if its capacity suffices; the prefix that its
      sequence shares with the prompt is not recomputed
    * `:return_kv_cache` - put the session into the result, as `:kv_cache`
    * `:return_timing` - put `%{prefill_ms, per_token_ms, total_ms}` into the result, as `:timing`; `per_token_ms` is
      filled only with `:profile_timing`
    * `:host_sync` - `:per_token`, `:end` or `{:chunk, n}`: accepted; with `:per_token` a step is requested only after the
      previous one was received
    * `:stream_chunking` - `:stable` (default): words are not split; `:token`
    * `:stream_host_sync` - `:per_token` or `{:chunk, n}` (default 5): how many tokens are emitted together, after the first
  """
  alias Quern.{Chunks, Generation, Job, Request, Session}

  @doc """
  Generate a text.

  The result is `%{results: [result], finish_reason: :stop | :length, seed: seed}`, plus what the options add.
  """
  @spec run(Quern.Tokenizer.t(), Quern.Model.t(), term, keyword) :: map
  def run(tokenizer, model, input, opts \\ []) do
    request = Request.new(tokenizer, model, input, opts, :run)

    generate(request, [], fn {_ids, pieces, _result}, gathered ->
      {:cont, Enum.reverse(pieces, gathered)}
    end)
    |> finish(request, fn gathered, n_token ->
      %{results: [Request.output(request, Enum.reverse(gathered), n_token)]}
    end)
  end

  @doc """
  A lazy stream of the text's chunks. It generates as it is read, and stops when reading stops.

      Quern.TextGeneration.stream(tokenizer, model, "Once upon a time") |> Enum.each(&IO.write/1)
  """
  @spec stream(Quern.Tokenizer.t(), Quern.Model.t(), term) :: Enumerable.t()
  def stream(tokenizer, model, input), do: stream(tokenizer, model, input, [])

  @doc "A stream with options; or `stream/5` without options."
  @spec stream(Quern.Tokenizer.t(), Quern.Model.t(), term, keyword) :: Enumerable.t()
  def stream(tokenizer, model, input, opts) when is_list(opts) do
    request = Request.new(tokenizer, model, input, opts, :stream)
    Stream.resource(fn -> start(request) end, &take/1, &leave/1)
  end

  @spec stream(Quern.Tokenizer.t(), Quern.Model.t(), term, (chunk :: term -> term)) :: map
  def stream(tokenizer, model, input, emit_fun) when is_function(emit_fun, 1) do
    stream(tokenizer, model, input, emit_fun, [])
  end

  @doc """
  Generate a text and call `emit_fun` with its chunks.

  The result is `%{token_summary: %{input: n, output: n, padding: 0}, finish_reason: reason, seed: seed}`, plus what the options
  add.
  """
  @spec stream(Quern.Tokenizer.t(), Quern.Model.t(), term, (chunk :: term -> term), keyword) ::
          map
  def stream(tokenizer, model, input, emit_fun, opts) when is_function(emit_fun, 1) do
    request = Request.new(tokenizer, model, input, opts, :stream)

    generate(request, Chunks.new(request), fn {ids, pieces, result}, chunks ->
      {ready, chunks} = Chunks.push(chunks, ids, pieces)
      Enum.each(ready, emit_fun)
      if result != nil, do: Enum.each(Chunks.flush(chunks), emit_fun)
      {:cont, chunks}
    end)
    |> finish(request, fn _chunks, n_token ->
      %{token_summary: Request.summary(request, n_token)}
    end)
  end

  # The state of the stream: the generation, the request, the chunks, and whether we own the session.
  defp start(request) do
    {generation, is_ours} = begin(request)
    asked = for _ <- 0..request.ahead, do: Generation.ask(generation)
    {generation, asked, Chunks.new(request), is_ours}
  end

  # `nil` for chunks: the stream is over. An error: still to be raised, once the received chunks have been emitted.
  defp take({generation, asked, nil, is_ours}), do: {:halt, {generation, asked, nil, is_ours}}
  defp take({_generation, _asked, {:error, reason}, _is_ours}), do: Quern.Error.raise!(reason)

  defp take({generation, [ref | asked], chunks, is_ours}) do
    case Job.receive_answer(ref) do
      {:ok, {ids, pieces, nil}} ->
        asked = asked ++ [Generation.ask(generation)]
        {ready, chunks} = Chunks.push(chunks, ids, pieces)
        {ready, {generation, asked, chunks, is_ours}}

      {:ok, {ids, pieces, _result}} ->
        {ready, chunks} = Chunks.push(chunks, ids, pieces)
        {ready ++ Chunks.flush(chunks), {generation, asked, nil, is_ours}}

      {:error, _reason} = error ->
        {[], {generation, asked, error, is_ours}}
    end
  end

  defp leave({generation, asked, _chunks, is_ours}) do
    Generation.give_up(generation, asked)
    release(generation, is_ours)
  end

  # A session with sufficient capacity, and whether we created it.
  defp begin(request) do
    {session, is_ours} = session(request.kv_cache, request)

    try do
      {Generation.new(session, request.ids, request.generation), is_ours}
    rescue
      error ->
        if is_ours, do: Quern.free(session)
        reraise error, __STACKTRACE__
    end
  end

  defp session(%Session{} = given, request) do
    if given.model.ref != request.model.ref do
      raise ArgumentError,
            "expected :kv_cache to be a session of the model, got: #{inspect(given)}"
    end

    if given.n_ctx >= request.n_ctx, do: {given, false}, else: session(nil, request)
  end

  defp session(nil, request) do
    {Session.new(request.model, [{:n_ctx, request.n_ctx} | request.session]), true}
  end

  defp session(other, _request) do
    raise ArgumentError, "expected :kv_cache to be a Quern.Session, got: #{inspect(other)}"
  end

  defp release(generation, is_ours) do
    Quern.free(generation)
    if is_ours, do: Quern.free(generation.session)
  end

  # {result, accumulator, generation, whether we own its session, timing}
  defp generate(request, acc, fun) do
    started = now_us()
    {generation, is_ours} = begin(request)

    timed = fn {ids, _, _} = step, {acc, times} ->
      times = if request.profile_timing and ids != [], do: [now_us() | times], else: times
      {go_on, acc} = fun.(step, acc)
      {go_on, {acc, times}}
    end

    {result, {acc, times}} =
      try do
        Generation.reduce(generation, {acc, []}, timed, ahead: request.ahead)
      catch
        kind, reason ->
          release(generation, is_ours)
          :erlang.raise(kind, reason, __STACKTRACE__)
      end

    timing = %{
      prefill_ms: result.first_token_s * 1.0e3,
      per_token_ms: differences(times, []),
      total_ms: (now_us() - started) / 1.0e3
    }

    {result, acc, generation, is_ours, timing}
  end

  defp differences([last, before | rest], out) do
    differences([before | rest], [(last - before) / 1.0e3 | out])
  end

  defp differences(_one_or_none, out), do: out

  defp finish({result, acc, generation, is_ours, timing}, request, output) do
    map =
      output.(acc, result.n_generated)
      |> Map.merge(%{finish_reason: result.finish_reason, seed: generation.seed})
      |> put_if(request.return_timing, :timing, timing)
      |> put_if(request.return_kv_cache, :kv_cache, generation.session)

    release(generation, is_ours and not request.return_kv_cache)
    map
  end

  defp put_if(map, true, key, value), do: Map.put(map, key, value)
  defp put_if(map, _no, _key, _value), do: map

  defp now_us, do: System.monotonic_time(:microsecond)
end
