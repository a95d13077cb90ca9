# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Tokenizer do
  @moduledoc "The byte-level BPE tokenizer of a Hugging Face directory, with identical tokens."
  require Quern.Job
  alias Quern.{Error, Job}

  defstruct [:ref, :path, :n_vocab]

  @type t :: %__MODULE__{ref: reference, path: String.t(), n_vocab: pos_integer}

  @doc "Open the tokenizer of a model's directory."
  @spec load(Path.t()) :: {:ok, t} | {:error, Error.t()}
  def load(path) do
    path = path |> IO.chardata_to_string() |> Path.expand()

    with {:ok, {ref, n_vocab}} <- Job.result(Job.run(:tokenizer_open, [path])) do
      {:ok, %__MODULE__{ref: ref, path: path, n_vocab: n_vocab}}
    end
  end

  @doc "Like `load/1`, but raises."
  @spec load!(Path.t()) :: t
  def load!(path), do: Job.bang!(load(path))

  @doc """
  The ids of a text (UTF-8).

  Option: `:special`, default `true`: added tokens such as `<|im_end|>` in the text become their ids; `false`: they are plain
  text, as user input should be.
  """
  @spec encode(t, String.t(), keyword) :: [non_neg_integer]
  def encode(%__MODULE__{ref: ref}, text, opts \\ []) do
    opts = Keyword.validate!(opts, special: true)
    Job.run!(:tokenizer_encode, [ref, text, opts[:special]])
  end

  @doc "Decode ids to text. Option: `:skip_special`, default `true`: leave out special tokens."
  @spec decode(t, [non_neg_integer], keyword) :: String.t()
  def decode(%__MODULE__{ref: ref}, ids, opts \\ []) do
    opts = Keyword.validate!(opts, skip_special: true)
    Job.run!(:tokenizer_decode, [ref, Job.pack_ids(ids), opts[:skip_special]])
  end

  @doc "The id of the token with this exact text, or `nil`."
  @spec id(t, String.t()) :: non_neg_integer | nil
  def id(%__MODULE__{ref: ref}, text), do: Job.run!(:tokenizer_id, [ref, text])

  defimpl Inspect do
    def inspect(tokenizer, _opts) do
      "#Quern.Tokenizer<#{Path.basename(tokenizer.path)}, #{tokenizer.n_vocab} ids>"
    end
  end
end
