# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Chat do
  @moduledoc """
  From messages to a prompt, by the chat template of the model's files.

      template = Quern.Chat.load!(path)
      prompt = Quern.Chat.render(template, [%{role: "user", content: "Hello!"}])
  """
  require Quern.Job
  alias Quern.{Error, Job, Json}

  defstruct [:ref, :path]

  @type t :: %__MODULE__{ref: reference, path: String.t()}
  @type message :: %{optional(atom | String.t()) => term}

  @doc "Open the template of a model's directory. Option: `:file`, a file with another template for its tokens."
  @spec load(Path.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def load(path, opts \\ []) do
    opts = Keyword.validate!(opts, file: nil)
    path = path |> IO.chardata_to_string() |> Path.expand()
    file = opts[:file] && IO.chardata_to_string(opts[:file])

    with {:ok, ref} <- Job.result(Job.run(:chat_open, [path, file])) do
      {:ok, %__MODULE__{ref: ref, path: path}}
    end
  end

  @doc "As `load/2`; raises."
  @spec load!(Path.t(), keyword) :: t
  def load!(path, opts \\ []), do: Job.bang!(load(path, opts))

  @doc """
  The prompt of a conversation.

  Messages are maps with `role` and `content` (and `tool_calls` and so on), keys atoms or strings; or a binary of JSON.

  Options:

    * `:tools` - a list of maps in the form of the OpenAI API, or JSON
    * `:add_generation_prompt` - default `true`
    * `:think` - `true` or `false`; by default the template is not told
  """
  @spec render(t, [message] | String.t(), keyword) :: String.t()
  def render(%__MODULE__{ref: ref}, messages, opts \\ []) do
    opts = Keyword.validate!(opts, tools: nil, add_generation_prompt: true, think: nil)
    tools = opts[:tools] && json(opts[:tools])
    think = Map.get(%{nil => :auto, true => :on, false => :off}, opts[:think], opts[:think])
    Job.run!(:chat_render, [ref, json(messages), tools, opts[:add_generation_prompt], think])
  end

  defp json(text) when is_binary(text), do: text
  defp json(value), do: value |> Json.encode() |> IO.iodata_to_binary()

  defimpl Inspect do
    def inspect(template, _opts), do: "#Quern.Chat<#{Path.basename(template.path)}>"
  end
end
