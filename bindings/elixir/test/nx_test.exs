# SPDX-License-Identifier: Apache-2.0
defmodule Quern.NxTest do
  # Tests against a stub of Nx (test/support/nx_stub.ex): the calls and their arguments, not Nx itself.
  use Quern.TestCase, async: true
  alias Quern.{Native, Tensor}

  test "there and back" do
    for {type, ours} <- [{{:f, 32}, :f32}, {{:bf, 16}, :bf16}, {{:s, 64}, :s64}, {{:u, 32}, :u32}] do
      {_, bits} = type

      nx =
        Nx.from_binary(:crypto.strong_rand_bytes(6 * div(bits, 8)), type, [])
        |> Nx.reshape({2, 3})

      for copy <- [false, true] do
        tensor = Quern.Nx.from_nx(nx, copy: copy)
        assert {tensor.type, tensor.shape} == {ours, {2, 3}}
        assert Quern.Nx.to_nx(tensor) == nx
      end
    end

    assert Quern.Nx.from_nx(%Nx.Tensor{binary: <<1::64-native>>, type: {:s, 64}, shape: {}}).shape ==
             {1}

    assert %Nx.Tensor{backend: Some} = Quern.Nx.to_nx(Tensor.zeros({1}, :f32), backend: Some)
  end

  test "what is wrapped is an input, and no cache" do
    nx = Nx.from_binary(floats([1, 0, 0, 1]), {:f, 32}, []) |> Nx.reshape({2, 2})
    hidden = Tensor.from_binary(floats([1, 2]), :f32, {1, 1, 2})
    out = Native.attention_residual(hidden, hidden, Quern.Nx.from_nx(nx))
    assert to_floats(Tensor.to_binary(out)) == [2.0, 4.0]

    cache = Nx.from_binary(floats([0, 0]), {:f, 32}, []) |> Nx.reshape({1, 1, 1, 2})
    heads = Tensor.zeros({1, 1, 1, 2}, :f32)
    wrapped = Quern.Nx.from_nx(cache)

    assert_raise ArgumentError, ~r/read-only/, fn ->
      Native.kv_cache_attention(
        heads,
        heads,
        heads,
        wrapped,
        Quern.Nx.from_nx(cache, copy: true),
        0,
        1.0,
        2,
        1.0e4
      )
    end
  end
end
