# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Tensor do
  @moduledoc """
  A dense tensor on a device, row-major: the operands of `Quern.Native`.

  Types are written `:f32`, `:bf16`, `:f16`, `:s32`, `:s64`, `:u32`, or as Nx writes them, `{:f, 32}`. Elements in binaries are in
  native byte order.
  """
  require Quern.Job
  alias Quern.{Device, Error, Job}

  defstruct [:ref, :shape, :type, :device]

  @type t :: %__MODULE__{ref: reference, shape: tuple, type: atom, device: Device.t()}
  @type type :: atom | {:f | :bf | :s | :u, pos_integer}

  @types [:f32, :bf16, :f16, :s32, :s64, :u32]

  @doc """
  Create a tensor from a binary.

  Options:

    * `:device` - default `:cpu`
    * `:wrap` - `true`: the tensor uses the binary's memory without a copy and is read only, so it cannot be an output or a
      cache. A binary that is not suitably aligned is copied after all.

  ## Examples

      iex> tensor = Quern.Tensor.from_binary(<<1.0::float-32-native, 2.0::float-32-native>>, :f32, {2})
      iex> {tensor.shape, tensor.type}
      {{2}, :f32}
  """
  @spec from_binary(binary, type, tuple, keyword) :: t
  def from_binary(binary, type, shape, opts \\ []) do
    opts = Keyword.validate!(opts, device: :cpu, wrap: false)
    device = Device.get!(opts[:device])
    {type, sizes} = {type!(type), sizes!(shape)}

    case Job.run(:tensor_from_binary, [device.ref, binary, type, sizes, opts[:wrap]]) do
      {:ok, made} ->
        made(made, device)

      {:error, {:einval, "data: must be aligned" <> _}} ->
        made(Job.run!(:tensor_from_binary, [device.ref, binary, type, sizes, false]), device)

      {:error, reason} ->
        Error.raise!(reason)
    end
  end

  @doc "Create a tensor of zeros, for example a cache. Option: `:device`."
  @spec zeros(tuple, type, keyword) :: t
  def zeros(shape, type, opts \\ []) do
    opts = Keyword.validate!(opts, device: :cpu)
    device = Device.get!(opts[:device])
    made(Job.run!(:tensor_zeros, [device.ref, type!(type), sizes!(shape)]), device)
  end

  @doc """
  Load the tensors of a safetensors file, by name, and the values of selected metadata keys.

  Options: `:device`; `:metadata`, a list of keys.
  """
  @spec load(Path.t(), keyword) ::
          {:ok, %{String.t() => t}, %{String.t() => String.t()}} | {:error, Error.t()}
  def load(path, opts \\ []) do
    opts = Keyword.validate!(opts, device: :cpu, metadata: [])
    device = Device.get!(opts[:device])

    path = IO.chardata_to_string(path)

    with {:ok, {tensors, metadata}} <-
           Job.result(Job.run(:tensor_file_read, [device.ref, path, opts[:metadata]])) do
      {:ok, Map.new(tensors, fn {name, made} -> {name, made(made, device)} end), metadata}
    end
  end

  @doc """
  Copy all elements to a binary, densely packed.

      iex> Quern.Tensor.to_binary(Quern.Tensor.zeros({2}, :bf16))
      <<0, 0, 0, 0>>
  """
  @spec to_binary(t) :: binary
  def to_binary(%__MODULE__{ref: ref}), do: Job.run!(:tensor_to_binary, [ref])

  @doc """
  A view of the same memory with another shape.

      iex> Quern.Tensor.reshape(Quern.Tensor.zeros({2, 3}, :f32), {6}).shape
      {6}
  """
  @spec reshape(t, tuple) :: t
  def reshape(%__MODULE__{} = tensor, shape) do
    made(Job.run!(:tensor_reshape, [tensor.ref, sizes!(shape)]), tensor.device)
  end

  @spec shape(t) :: tuple
  def shape(%__MODULE__{shape: shape}), do: shape

  @spec type(t) :: atom
  def type(%__MODULE__{type: type}), do: type

  @spec device(t) :: Device.t()
  def device(%__MODULE__{device: device}), do: device

  @doc false
  def made({ref, sizes, type}, device) do
    %__MODULE__{ref: ref, shape: List.to_tuple(sizes), type: type, device: device}
  end

  @doc false
  def type!(type) when type in @types, do: type
  def type!({:f, 32}), do: :f32
  def type!({:bf, 16}), do: :bf16
  def type!({:f, 16}), do: :f16
  def type!({:s, 32}), do: :s32
  def type!({:s, 64}), do: :s64
  def type!({:u, 32}), do: :u32

  def type!(other) do
    raise ArgumentError, "type: must be one of #{Enum.join(@types, ", ")}, got #{inspect(other)}"
  end

  defp sizes!(shape) when is_tuple(shape), do: Tuple.to_list(shape)
  defp sizes!(other), do: raise(ArgumentError, "shape: must be a tuple, got #{inspect(other)}")

  defimpl Inspect do
    def inspect(tensor, _opts) do
      sizes = tensor.shape |> Tuple.to_list() |> Enum.map_join(&"[#{&1}]")
      "#Quern.Tensor<#{tensor.type}#{sizes} #{tensor.device.name}>"
    end
  end
end
