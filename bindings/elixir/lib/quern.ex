# SPDX-License-Identifier: Apache-2.0
defmodule Quern do
  @moduledoc """
  Qwen3 as native, fused primitives, and the complete path from a checkpoint to text.

  Three levels, each usable on its own:

    * `Quern.Native` - the primitives of a layer over `Quern.Tensor`s, with EMLX's names and operand order;
    * `Quern.Model`, `Quern.Tokenizer`, `Quern.Chat`, `Quern.Session`, `Quern.Generation` - a Hugging Face
      checkpoint, and what computes with it;
    * `Quern.TextGeneration` and `Quern.Serving` - text in, text out, for one caller or for many.

  ## Threads

  No function keeps a VM scheduler busy. Computing, reading files and copying tensors is done on a thread of the NIF, one per
  device, in call order; the calling process waits for a message. One decode step, or one chunk of a prompt, is one turn.
  Callers take turns, and if a process dies its work ends with the current turn.

  ## Errors

  Invalid arguments raise `ArgumentError` with the library's message, which names the operand: `k_proj: input width must be
  1024, got 1000`. Other failures (files, memory) raise `Quern.Error`. Functions that open something return
  `{:error, %Quern.Error{}}` instead and have a `!` variant.

  ## Erlang

  Everything can be called from Erlang: `'Elixir.Quern.Model':load(Path, [])`.
  """

  alias Quern.Nif

  @doc "The version of the linked library."
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
  Free the native value behind a Quern struct now, without waiting for garbage collection.

  Memory is released once the pending jobs and the objects that depend on it are gone. Later calls with it raise
  `ArgumentError`. Freeing twice is allowed.

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

  @doc "The number of live objects of each kind in this VM."
  @spec counts() :: %{atom => non_neg_integer}
  def counts, do: Nif.counts()
end
