# SPDX-License-Identifier: Apache-2.0
defmodule Quern.TensorTest do
  use Quern.TestCase, async: true
  alias Quern.{Device, Linear, Tensor}

  doctest Quern
  doctest Quern.Tensor
  doctest Quern.Device

  test "binaries of all types and sizes come back as they were" do
    for {type, size} <- [f32: 4, bf16: 2, f16: 2, s32: 4, s64: 8, u32: 4],
        n <- [1, 3, 1000, 100_000],
        wrap <- [false, true] do
      binary = :crypto.strong_rand_bytes(n * size)
      tensor = Tensor.from_binary(binary, type, {n}, wrap: wrap)
      assert Tensor.to_binary(tensor) == binary
      assert Tensor.to_binary(Tensor.reshape(tensor, {1, n})) == binary
    end
  end

  test "a wrapped binary is not copied, and lives as long as its tensor" do
    binary = :crypto.strong_rand_bytes(8_000_000)
    tensor = Tensor.from_binary(binary, :f32, {2_000_000}, wrap: true)
    view = Tensor.reshape(tensor, {1000, 2000})
    {:refc, [_ | _]} = {:refc, Process.info(self(), :binary) |> elem(1)}
    hash = sha256(binary)
    :erlang.garbage_collect()
    Quern.free(tensor)
    assert sha256(Tensor.to_binary(view)) == hash
  end

  test "a part of a binary that is not aligned is copied" do
    <<_, part::binary>> = :crypto.strong_rand_bytes(4001)
    tensor = Tensor.from_binary(part, :f32, {1000}, wrap: true)
    assert Tensor.to_binary(tensor) == part
  end

  test "bits that begin in a byte are copied" do
    <<_::4, part::binary-size(4000), _::4>> = :crypto.strong_rand_bytes(4001)
    want = :binary.copy(part)

    for wrap <- [true, false],
        do: assert(Tensor.to_binary(Tensor.from_binary(part, :f32, {1000}, wrap: wrap)) == want)
  end

  test "what is shared is not freed" do
    device = Device.default()
    assert_raise ArgumentError, ~r/is shared/, fn -> Quern.free(device) end
    assert Tensor.zeros({1}, :f32).shape == {1}
  end

  test "types are written as Nx writes them too" do
    assert Tensor.zeros({2}, {:bf, 16}).type == :bf16
    assert inspect(Tensor.zeros({2, 3}, {:u, 32})) == "#Quern.Tensor<u32[2][3] cpu>"

    assert_raise ArgumentError, ~r/^type: must be one of f32/, fn ->
      Tensor.zeros({2}, {:f, 64})
    end
  end

  test "wrong arguments are named" do
    assert_raise ArgumentError, "bytes: must be 12, got 8", fn ->
      Tensor.from_binary(<<0::64>>, :f32, {3})
    end

    assert_raise ArgumentError, ~r/8 bytes/, fn ->
      Tensor.from_binary(<<0::64>>, :f32, {3}, wrap: true)
    end

    assert_raise ArgumentError, ~r/shape/, fn -> Tensor.zeros({0}, :f32) end
    assert_raise ArgumentError, ~r/shape/, fn -> Tensor.zeros({-1, 2}, :f32) end

    assert_raise ArgumentError, ~r/shape: must be a list of at most 4, got a longer one/, fn ->
      Tensor.zeros({1, 1, 1, 1, 1}, :f32)
    end

    assert_raise ArgumentError, ~r/shape: must be a tuple/, fn -> Tensor.zeros([2], :f32) end

    assert_raise ArgumentError, ~r/data: must be a binary/, fn ->
      Tensor.from_binary(:x, :f32, {1})
    end

    assert_raise ArgumentError, ~r/shape: must have 2 elements/, fn ->
      Tensor.reshape(Tensor.zeros({2}, :f32), {3})
    end

    assert_raise ArgumentError, ~r/device/, fn -> Tensor.zeros({1}, :f32, device: "cpu") end
    huge = {0x7FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF}
    assert_raise ArgumentError, fn -> Tensor.zeros(huge, :f32) end
    assert_raise Quern.Error, ~r/memory/, fn -> Tensor.zeros({0x3FFFFFFFFFFF}, :f32) end
  end

  test "files that are none are told of" do
    assert {:error, %Quern.Error{status: :eio}} = Tensor.load("/nowhere.safetensors")
    assert {:error, %Quern.Error{status: :eformat}} = Tensor.load(__ENV__.file)
    assert_raise ArgumentError, "path: holds a zero byte", fn -> Tensor.load("a\0b") end
  end

  test "devices" do
    assert {:error, %Quern.Error{status: :eunsupported, message: message}} = Device.open(:tpu)
    assert message =~ "tpu"
    assert_raise ArgumentError, ~r/n_thread/, fn -> Device.open(:cpu, threads: -1) end
    assert_raise ArgumentError, ~r/isa/, fn -> Device.open(:cpu, isa: "mmx") end
    device = Device.open!(:cpu, threads: 1, isa: "portable")
    assert {device.n_thread, device.isa} == {1, "portable"}
    tensor = Tensor.from_binary(<<1, 2, 3, 4>>, :u32, {1}, device: device)
    # Objects created on it keep working.
    Quern.free(device)
    assert Tensor.to_binary(tensor) == <<1, 2, 3, 4>>

    assert_raise ArgumentError, "device: is a device that was freed", fn ->
      Tensor.zeros({1}, :f32, device: device)
    end
  end

  test "linears tell what they are" do
    weight = Tensor.from_binary(floats(for i <- 1..(64 * 32), do: :math.sin(i)), :f32, {64, 32})
    linear = Linear.pack(weight, arith: :f32)
    assert {linear.n_in, linear.n_out, linear.type, linear.arith} == {64, 32, :f32, :f32}
    q8 = Linear.quantize(weight, :q8)
    assert {q8.n_in, q8.n_out, q8.type} == {64, 32, :u32}
    assert q8.bytes < linear.bytes
    out_in = Linear.pack(weight, layout: :out_in, arith: :f32)
    assert {out_in.n_in, out_in.n_out} == {32, 64}

    assert_raise ArgumentError, ~r/layout: must be one of in_out, out_in, got sideways/, fn ->
      Linear.pack(weight, layout: :sideways)
    end

    codes = Tensor.zeros({32, 8}, :u32)
    scales = Tensor.zeros({32, 1}, :f32)
    affine = Linear.pack_quantized(codes, scales, bits: 4, group: 64)
    assert {affine.n_in, affine.n_out} == {64, 32}

    assert_raise ArgumentError, ~r/bits/, fn ->
      Linear.pack_quantized(codes, scales, bits: 7, group: 64)
    end
  end
end
