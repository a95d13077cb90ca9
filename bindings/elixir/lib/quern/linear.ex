# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Linear do
  @moduledoc """
  A weight matrix packed in the layout that the device's kernels read: the fast form of a linear operand.

  Every linear operand of `Quern.Native` may be a plain `{in, out}` tensor or a packed linear; with `arith: :f32` both give
  the same bits. An `lm_head` or an embedding `{V, H}` is packed with `layout: :out_in`.
  """
  require Quern.Job
  alias Quern.{Device, Job, Tensor}

  defstruct [:ref, :n_in, :n_out, :type, :arith, :bytes, :device]

  @type t :: %__MODULE__{
          ref: reference,
          n_in: pos_integer,
          n_out: pos_integer,
          type: atom,
          arith: :f32 | :bf16 | :int8,
          bytes: pos_integer,
          device: Device.t()
        }

  @doc """
  Pack a matrix, which is not needed afterwards.

  Options: `:layout`, `:in_out` (default) or `:out_in`; `:arith`, `:auto` (default), `:f32`, `:bf16` or `:int8`.
  """
  @spec pack(Tensor.t(), keyword) :: t
  def pack(%Tensor{} = weight, opts \\ []) do
    opts = Keyword.validate!(opts, layout: :in_out, arith: :auto)
    made(Job.run!(:linear_pack, [weight.ref, opts[:layout], opts[:arith]]), weight)
  end

  @doc "Quantize a matrix to `:q8` or `:q4` and pack it. Options as for `pack/2`."
  @spec quantize(Tensor.t(), :q8 | :q4, keyword) :: t
  def quantize(%Tensor{} = weight, to, opts \\ []) do
    opts = Keyword.validate!(opts, layout: :in_out, arith: :auto)
    made(Job.run!(:linear_quantize, [weight.ref, opts[:layout], to, opts[:arith]]), weight)
  end

  @doc """
  Pack an already quantized matrix, `{out, in}` as stored in checkpoints, with `:u32` codes in MLX's affine format.

  Options: `:bits`, `:group` (both required), `:biases` (a tensor, default none), `:arith`.
  """
  @spec pack_quantized(Tensor.t(), Tensor.t(), keyword) :: t
  def pack_quantized(%Tensor{} = codes, %Tensor{} = scales, opts) do
    opts = Keyword.validate!(opts, [:bits, :group, biases: nil, group_out: 0, arith: :auto])
    biases = opts[:biases] && opts[:biases].ref
    {bits, group, group_out} = {opts[:bits] || 0, opts[:group] || 0, opts[:group_out]}
    arith = opts[:arith]

    Job.run!(:linear_pack_quantized, [
      codes.ref,
      scales.ref,
      biases,
      bits,
      group,
      group_out,
      arith
    ])
    |> made(codes)
  end

  defp made({ref, info}, %Tensor{device: device}) do
    struct!(%__MODULE__{ref: ref, device: device}, info)
  end

  defimpl Inspect do
    def inspect(linear, _opts) do
      "#Quern.Linear<#{linear.n_in} x #{linear.n_out} #{linear.type}, #{linear.arith} arithmetic>"
    end
  end
end
