# SPDX-License-Identifier: Apache-2.0
defmodule Quern do
  @moduledoc """
  Qwen3 as native, fused primitives, and the whole way from a checkpoint to text.

  Three levels, each useful alone:

    * `Quern.Native` - the primitives of a layer over `Quern.Tensor`s, with the names and the order of operands of EMLX;
    * `Quern.Model`, `Quern.Tokenizer`, `Quern.Chat`, `Quern.Session`, `Quern.Generation` - a checkpoint in the form of
      Hugging Face, and what computes with it;
    * `Quern.TextGeneration` and `Quern.Serving` - text in, text out, for one caller or for many.

  ## Threads

  No function keeps a scheduler of the VM busy. What computes, reads a file or copies a tensor is done by a thread of the
  NIF, one for each device, in the order of the calls; the calling process waits for a message. One decode step, or one
  part of a prompt, is one turn: so callers take turns with each other, and the work of a process that dies ends with
  the turn that runs.

  ## Errors

  Wrong arguments raise `ArgumentError` with the message of the library, which names the operand: `k_proj: input width must be
  1024, got 1000`. Other failures (a file, memory) raise `Quern.Error`; functions that open something return
  `{:error, %Quern.Error{}}` instead and have a variant with `!`.

  ## Erlang

  All of it can be called from Erlang: `'Elixir.Quern.Model':load(Path, [])`.
  """

  alias Quern.Nif

  @doc "The version of the library that is linked."
  @spec version() :: String.t()
  def version, do: Nif.version()

  @doc """
  The names of the devices that this build can open, best first.

      iex> :cpu in Quern.devices()
      true
  """
  @spec devices() :: [atom]
  def devices, do: Nif.devices()

  @doc """
  Free what a struct of Quern holds, now, and not when the last process has forgotten it.

  Memory is given back when the jobs that were begun with it, and what was made from it, are done. Later calls with it raise
  `ArgumentError`. Freeing twice is fine.

      iex> tensor = Quern.Tensor.zeros({2}, :f32)
      iex> Quern.free(tensor)
      iex> Quern.Tensor.to_binary(tensor)
      ** (ArgumentError) tensor: is a tensor that was freed
  """
  @spec free(struct) :: :ok
  def free(%Quern.Device{} = device) do
    if Quern.Device.Default.shared?(device) do
      raise ArgumentError,
            "device: #{inspect(device)} is shared by all that name none of their own"
    end

    Nif.free(device.ref)
  end

  def free(%{ref: ref}) when is_reference(ref), do: Nif.free(ref)

  @doc "How many objects of each kind there are that are not freed yet, in this VM."
  @spec counts() :: %{atom => non_neg_integer}
  def counts, do: Nif.counts()
end
