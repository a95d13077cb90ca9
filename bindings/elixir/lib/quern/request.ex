# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Request do
  @moduledoc false
  # Requests: validated options of Quern.TextGeneration and Quern.Serving, and the shapes of their results.
  alias Quern.{Chat, Model, Sampler, Tokenizer}

  defstruct [
    :model,
    :tokenizer,
    :ids,
    :n_ctx,
    :generation,
    :output_format,
    :split_reasoning,
    :ahead,
    :group,
    :chunking,
    :profile_timing,
    :return_timing,
    :return_kv_cache,
    :kv_cache,
    :session
  ]

  @own [
    max_new_tokens: 100,
    max_len: 2048,
    stop: [],
    ignore_eos: false,
    split_reasoning: false,
    output_format: :native,
    host_sync: :default,
    stream_host_sync: {:chunk, 5},
    stream_chunking: :stable,
    profile_timing: false,
    return_timing: false,
    return_kv_cache: false,
    kv_cache: nil,
    n_batch: 512,
    kv_type: nil,
    min_tokens: 0,
    stop_token_ids: [],
    chat: nil
  ]

  # Options of Quern.Chat.encode/4: for messages only.
  @conversation [{:parse_special, false} | Quern.Chat.options()]

  # Options of Quern.Generation.new/3.
  @generation [:stop, :stop_token_ids, :min_tokens, :ignore_eos, :split_reasoning]

  def conversation_keys, do: Keyword.keys(@conversation)

  # `kind` is :run or :stream.
  def new(tokenizer, model, input, opts, kind) do
    opts = checked!(opts)
    check_state!(tokenizer, model)
    {max_new, max_len} = {opts[:max_new_tokens], min(opts[:max_len], model.config.n_ctx_max)}
    {ahead, group} = host_sync!(kind, opts)
    {ids, ends} = prompt(input, tokenizer, opts)
    if ids == [], do: raise(ArgumentError, "prompt: is empty")

    room = max_len - length(ids)

    if room < 1 do
      raise ArgumentError,
            "prompt: its #{length(ids)} tokens leave no room for an answer in the #{max_len} of :max_len or the model"
    end

    generation =
      [tokenizer: tokenizer, n_predict: min(max_new, room), ends: ends] ++
        Keyword.take(opts, @generation ++ Sampler.keys())

    %__MODULE__{
      model: model,
      tokenizer: tokenizer,
      ids: ids,
      n_ctx: length(ids) + min(max_new, room),
      generation: generation,
      output_format: opts[:output_format],
      split_reasoning: opts[:split_reasoning],
      ahead: ahead,
      group: group,
      chunking: opts[:stream_chunking],
      profile_timing: opts[:profile_timing],
      return_timing: opts[:return_timing],
      return_kv_cache: opts[:return_kv_cache],
      kv_cache: opts[:kv_cache],
      session: [n_batch: opts[:n_batch], kv_type: opts[:kv_type]]
    }
  end

  # The default request options of a serving are checked when it starts.
  def check_options!(opts) do
    opts = checked!(opts)
    host_sync!(:run, opts)
    host_sync!(:stream, opts)
    Sampler.settle(opts)
    :ok
  end

  # Fill in the defaults.
  defp checked!(opts) do
    opts = Keyword.validate!(opts, @own ++ @conversation ++ Sampler.keys())
    for key <- [:max_new_tokens, :max_len], do: positive!(opts, key)
    one_of!(opts, :output_format, [:native, :bumblebee])
    one_of!(opts, :stream_chunking, [:stable, :token])
    opts
  end

  defp check_state!(%Tokenizer{}, %Model{}), do: :ok

  defp check_state!(%Tokenizer{}, model) do
    raise ArgumentError, "expected a Quern.Model, got: #{inspect(model)}"
  end

  defp check_state!(tokenizer, _model) do
    raise ArgumentError, "expected a Quern.Tokenizer, got: #{inspect(tokenizer)}"
  end

  defp positive!(opts, key) do
    case opts[key] do
      n when is_integer(n) and n > 0 ->
        :ok

      other ->
        raise ArgumentError,
              "expected #{inspect(key)} to be a positive integer, got: #{inspect(other)}"
    end
  end

  defp one_of!(opts, key, [first, second]) do
    if opts[key] not in [first, second] do
      raise ArgumentError,
            "expected #{inspect(key)} to be #{inspect(first)} or #{inspect(second)}, got: #{inspect(opts[key])}"
    end
  end

  # {steps requested ahead, tokens per chunk}. EMLX's host synchronization interval only sets the chunk size here. One step
  # ahead keeps the device busy.
  defp host_sync!(:run, opts) do
    case opts[:host_sync] do
      :per_token -> {0, 1}
      {:chunk, n} when is_integer(n) and n > 0 -> {1, n}
      other when other in [:default, :end] -> {1, 1}
      other -> bad_sync(:host_sync, ":per_token, :end or {:chunk, positive_integer}", other)
    end
  end

  defp host_sync!(:stream, opts) do
    case opts[:stream_host_sync] do
      :per_token -> {1, 1}
      {:chunk, n} when is_integer(n) and n > 0 -> {1, n}
      other -> bad_sync(:stream_host_sync, ":per_token or {:chunk, positive_integer}", other)
    end
  end

  defp bad_sync(key, wanted, got) do
    raise ArgumentError, "expected #{inspect(key)} to be #{wanted}, got: #{inspect(got)}"
  end

  # {ids, end ids besides the model's}
  defp prompt(text, tokenizer, opts) when is_binary(text) do
    for {key, default} <- @conversation, opts[key] != default do
      raise ArgumentError, "#{key}: goes with messages, not with a text"
    end

    {Tokenizer.encode(tokenizer, text), []}
  end

  defp prompt(%{text: text}, tokenizer, opts) when is_binary(text) do
    prompt(text, tokenizer, opts)
  end

  defp prompt(%{messages: messages}, tokenizer, opts) do
    case opts[:chat] do
      %Chat{} = chat ->
        conversation = Keyword.take(opts, conversation_keys())
        {Chat.encode(chat, tokenizer, messages, conversation), Chat.ends(chat, tokenizer)}

      other ->
        raise ArgumentError,
              "expected :chat to be a Quern.Chat for messages, got: #{inspect(other)}"
    end
  end

  defp prompt(inputs, _tokenizer, _opts) when is_list(inputs) do
    raise ArgumentError, "text generation takes one input at a time, got a list"
  end

  defp prompt(other, _tokenizer, _opts) do
    raise ArgumentError,
          "expected input to be a binary, %{text: binary} or %{messages: list}, got: #{inspect(other)}"
  end

  # {content, reasoning}
  defp texts(pieces) do
    {content, reasoning} = Enum.split_with(pieces, &(elem(&1, 0) == :content))
    {IO.iodata_to_binary(Keyword.values(content)), IO.iodata_to_binary(Keyword.values(reasoning))}
  end

  # One element of `results`.
  def output(%__MODULE__{output_format: :native} = request, pieces, n_token) do
    {content, reasoning} = texts(pieces)
    put_reasoning(%{generated_text: content, num_tokens: n_token}, request, reasoning)
  end

  def output(%__MODULE__{output_format: :bumblebee} = request, pieces, n_token) do
    {content, reasoning} = texts(pieces)
    put_reasoning(%{text: content, token_summary: summary(request, n_token)}, request, reasoning)
  end

  defp put_reasoning(map, %{split_reasoning: true}, text), do: Map.put(map, :reasoning_text, text)
  defp put_reasoning(map, _request, _text), do: map

  def summary(request, n_token), do: %{input: length(request.ids), output: n_token, padding: 0}
end
