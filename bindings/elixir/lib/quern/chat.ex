# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Chat do
  @moduledoc """
  Renders messages to a prompt with the model's chat template.

      template = Quern.Chat.load!(path)
      prompt = Quern.Chat.render(template, [%{role: "user", content: "Hello!"}])
  """
  require Quern.Job
  alias Quern.{Error, Job, Json, Tokenizer}

  defstruct [:ref, :path]

  @type t :: %__MODULE__{ref: reference, path: String.t()}
  # Options of a conversation, with their defaults.
  @conversation [
    tools: nil,
    documents: nil,
    chat_template_kwargs: nil,
    add_generation_prompt: nil,
    continue_final_message: false,
    tool_arguments: :text,
    date: nil,
    think: nil
  ]

  @type message :: %{optional(atom | String.t()) => term}

  @doc false
  def options, do: @conversation

  @doc "Open the template of a model's directory. Option: `:file`, another template file; the tokens stay the model's."
  @spec load(Path.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def load(path, opts \\ []) do
    opts = Keyword.validate!(opts, file: nil)
    path = path |> IO.chardata_to_string() |> Path.expand()
    file = opts[:file] && IO.chardata_to_string(opts[:file])

    with {:ok, ref} <- Job.result(Job.run(:chat_open, [path, file])) do
      {:ok, %__MODULE__{ref: ref, path: path}}
    end
  end

  @doc "Like `load/2`, but raises."
  @spec load!(Path.t(), keyword) :: t
  def load!(path, opts \\ []), do: Job.bang!(load(path, opts))

  @doc """
  The prompt of a conversation.

  Messages are maps with `role`, `content`, `tool_calls` and so on, with atom or string keys; or a JSON binary.

  Options:

    * `:tools` - a list of maps in OpenAI API format, or JSON
    * `:documents` - a list of maps, or JSON
    * `:chat_template_kwargs` - a map of further template variables, or JSON
    * `:add_generation_prompt` - default `true`, or `false` with `:continue_final_message`
    * `:continue_final_message` - end the prompt inside the last message, so that the model continues it
    * `:tool_arguments` - `:object`: JSON text in tool-call arguments is parsed into objects for the template; default `:text`
    * `:date` - the current date for the template: a `Date`, a `NaiveDateTime`, or a string like `"2026-01-31"`
    * `:think` - thinking mode, `true` or `false`; by default the variable is undefined. An error if the template does not
      read it
  """
  @spec render(t, [message] | String.t(), keyword) :: String.t()
  def render(%__MODULE__{ref: ref}, messages, opts \\ []) do
    opts = Keyword.validate!(opts, @conversation)
    Job.run!(:chat_render, [ref, conversation(messages, opts)])
  end

  @doc """
  The ids of the prompt that `render/3` gives.

  Added tokens are recognized only in text written by the template itself: `<|im_end|>` inside a message does not end a turn.
  Options are those of `render/3`, and `:parse_special`, default `false`: recognize added tokens in messages too, as
  `Quern.Tokenizer.encode/3` does.
  """
  @spec encode(t, Tokenizer.t(), [message] | String.t(), keyword) :: [non_neg_integer]
  def encode(%__MODULE__{ref: ref}, %Tokenizer{} = tokenizer, messages, opts \\ []) do
    opts = Keyword.validate!(opts, [{:parse_special, false} | @conversation])
    conversation = conversation(messages, opts)
    Job.run!(:chat_encode, [ref, tokenizer.ref, conversation, opts[:parse_special]])
  end

  @doc """
  The ids that end an answer according to the tokenizer and the template, for the `:ends` option of `Quern.Generation.new/3`.
  The model's configuration may list others, or none.
  """
  @spec ends(t, Tokenizer.t()) :: [non_neg_integer]
  def ends(%__MODULE__{ref: ref}, %Tokenizer{} = tokenizer) do
    Job.run!(:chat_ends, [ref, tokenizer.ref])
  end

  # The arguments in the form that the NIF expects.
  defp conversation(messages, opts) do
    continues = opts[:continue_final_message]

    generates =
      if opts[:add_generation_prompt] == nil,
        do: continues != true,
        else: opts[:add_generation_prompt]

    think = Map.get(%{nil => :auto, true => :on, false => :off}, opts[:think], opts[:think])

    {json(messages), json_or_nil(opts[:tools]), json_or_nil(opts[:documents]),
     json_or_nil(opts[:chat_template_kwargs]), date(opts[:date]), generates, continues,
     arguments_object(opts[:tool_arguments]), think}
  end

  defp arguments_object(:text), do: false
  defp arguments_object(:object), do: true

  defp arguments_object(other) do
    raise ArgumentError,
          "expected :tool_arguments to be :text or :object, got: #{inspect(other)}"
  end

  defp date(nil), do: nil
  defp date(%Date{} = date), do: Date.to_iso8601(date)

  defp date(%NaiveDateTime{} = time) do
    time |> NaiveDateTime.truncate(:second) |> NaiveDateTime.to_iso8601()
  end

  defp date(text), do: text

  defp json_or_nil(nil), do: nil
  # An empty map must not be encoded as an empty list.
  defp json_or_nil(map) when map == %{}, do: "{}"
  defp json_or_nil(value), do: json(value)

  defp json(text) when is_binary(text), do: text
  defp json(value), do: value |> Json.encode() |> IO.iodata_to_binary()

  defimpl Inspect do
    def inspect(template, _opts), do: "#Quern.Chat<#{Path.basename(template.path)}>"
  end
end
