# SPDX-License-Identifier: Apache-2.0
defmodule Quern.NativeTest do
  # The primitives on the golden cases, bit-identical to the C API; operands in every form; refusals.
  use Quern.TestCase, async: true
  alias Quern.{Linear, Native, Tensor}

  doctest Quern.Native

  @keys ~w(batch tokens hidden intermediate heads kv_heads head_dim capacity offset theta scale eps)
  @linears ~w(q_proj k_proj v_proj o_proj gate_proj up_proj down_proj)

  defp golden(index) do
    {:ok, tensors, metadata} =
      Tensor.load(data("primitives/case#{index}.safetensors"), metadata: @keys)

    numbers = Map.new(metadata, fn {key, text} -> {String.to_atom(key), number(text)} end)
    {tensors, numbers}
  end

  defp number(text) do
    case Integer.parse(text) do
      {n, ""} -> n
      _ -> text |> Float.parse() |> elem(0)
    end
  end

  defp packed(tensors) do
    for name <- @linears, into: tensors, do: {name, Linear.pack(tensors[name], arith: :f32)}
  end

  # Caches are written to, so each primitive gets its own.
  defp caches(t) do
    for name <- ["k_cache", "v_cache"] do
      Tensor.from_binary(Tensor.to_binary(t[name]), t[name].type, t[name].shape)
    end
  end

  defp compute("kv_attention", t, n) do
    [k, v] = caches(t)

    Native.kv_cache_attention(
      t["q"],
      t["k"],
      t["v"],
      k,
      v,
      n.offset,
      n.scale,
      n.head_dim,
      n.theta
    )
  end

  defp compute("mlp", t, n) do
    Native.mlp(t["hidden"], t["norm2"], t["gate_proj"], t["up_proj"], t["down_proj"], n.eps)
  end

  defp compute("attention_residual", t, _n) do
    Native.attention_residual(t["hidden"], t["attn"], t["o_proj"])
  end

  defp compute("attention_block", t, n, offset \\ nil) do
    [k, v] = caches(t)

    attention =
      for name <- ~w(hidden norm1 q_proj k_proj v_proj o_proj q_norm k_norm), do: t[name]

    numbers = [offset || n.offset, n.scale, n.head_dim, n.theta, n.eps]
    apply(Native, :attention_block, attention ++ [k, v] ++ numbers)
  end

  defp layer_operands(t, n, offset \\ nil) do
    [k, v] = caches(t)

    attention =
      for name <- ~w(hidden norm1 q_proj k_proj v_proj o_proj q_norm k_norm), do: t[name]

    mlp = for name <- ~w(norm2 gate_proj up_proj down_proj), do: t[name]
    attention ++ [k, v] ++ mlp ++ [offset || n.offset, n.scale, n.head_dim, n.theta, n.eps]
  end

  defp bits(%Tensor{} = out), do: Tensor.to_binary(out)
  defp bits({out, k, v}), do: bits(out) <> bits(k) <> bits(v)

  test "the goldens are what C computes, bit by bit" do
    for [_, index, name, form, digest] <- Enum.filter(digests(), &(hd(&1) == "primitive")) do
      {t, n} = golden(index)
      t = if form == "packed", do: packed(t), else: t

      result =
        if name == "layer",
          do: apply(Native, :layer_dense, layer_operands(t, n)),
          else: compute(name, t, n)

      assert sha256(bits(result)) == digest, "case #{index}, #{name}, #{form}"
    end
  end

  test "caches are updated in place and returned as they were given" do
    {t, n} = golden(0)
    operands = layer_operands(t, n)
    [k, v] = Enum.slice(operands, 8, 2)
    before = Tensor.to_binary(k)
    {out, k2, v2} = apply(Native, :layer_dense, operands)
    assert {k2.ref, v2.ref} == {k.ref, v.ref}
    assert Tensor.to_binary(k) != before
    assert out.shape == t["hidden"].shape
    assert out.type == :f32
  end

  test "an offset is a number, a row of them, or a tensor" do
    {t, n} = golden(1)
    want = bits(compute("attention_block", t, n, n.offset))
    rows = List.duplicate(n.offset, n.batch)
    assert bits(compute("attention_block", t, n, rows)) == want

    for {type, size} <- [s32: 32, s64: 64], count <- Enum.uniq([1, n.batch]) do
      binary = for _ <- 1..count, into: <<>>, do: <<n.offset::size(size)-signed-native>>
      offset = Tensor.from_binary(binary, type, {count})
      assert bits(compute("attention_block", t, n, offset)) == want
      [k, v] = caches(t)

      assert bits(
               Native.kv_cache_attention_tensor_offset(
                 t["q"],
                 t["k"],
                 t["v"],
                 k,
                 v,
                 offset,
                 n.scale,
                 n.head_dim,
                 n.theta
               )
             ) == bits(compute("kv_attention", t, n))
    end
  end

  test "an offset in a tensor is clamped to the room there is" do
    {t, n} = golden(0)
    last = n.capacity - n.tokens
    far = Tensor.from_binary(<<1_000_000::32-signed-native>>, :s32, {1})
    below = Tensor.from_binary(<<-5::32-signed-native>>, :s32, {1})

    assert bits(compute("attention_block", t, n, far)) ==
             bits(compute("attention_block", t, n, last))

    assert bits(compute("attention_block", t, n, below)) ==
             bits(compute("attention_block", t, n, 0))
  end

  test "theta is a number, YaRN or a table" do
    {t, n} = golden(0)
    want = bits(compute("attention_block", t, n))
    half = div(n.head_dim, 2)
    table = for i <- 0..(half - 1), do: :math.pow(n.theta, -2 * i / n.head_dim)
    got = bits(compute("attention_block", t, %{n | theta: [table: table]}))
    # f32 frequencies versus double ones.
    error =
      Enum.zip(to_floats(want), to_floats(got))
      |> Enum.map(fn {a, b} -> abs(a - b) end)
      |> Enum.max()

    assert error < 1.0e-5
    yarn = [theta: n.theta, factor: 4.0, original_ctx: 64]
    assert bits(compute("attention_block", t, %{n | theta: yarn})) != want

    assert_raise ArgumentError, ~r/unknown keys \[:alpha\]/, fn ->
      compute("attention_block", t, %{n | theta: [theta: 1.0, alpha: 2]})
    end
  end

  test "each linear of a layer is dense or quantized on its own" do
    {t, n} = golden(8)
    want = apply(Native, :layer_dense, layer_operands(t, n)) |> elem(0) |> bits() |> to_floats()
    greatest = want |> Enum.map(&abs/1) |> Enum.max()

    for names <- [~w(q_proj), ~w(gate_proj down_proj), @linears] do
      mixed =
        for name <- names, into: t do
          case rem(t[name].shape |> elem(0), 64) do
            0 -> {name, Linear.quantize(t[name], :q8)}
            _ -> {name, Linear.pack(t[name], arith: :f32)}
          end
        end

      got =
        apply(Native, :layer_generalized, layer_operands(mixed, n))
        |> elem(0)
        |> bits()
        |> to_floats()

      error = Enum.zip(want, got) |> Enum.map(fn {a, b} -> abs(a - b) end) |> Enum.max()
      assert error < 0.02 * greatest
    end
  end

  # A one-layer model with a tied LM head.
  defp tiny(t, n, vocab \\ 50) do
    :rand.seed(:exsss, {1, 2, 3})
    values = for _ <- 1..(vocab * n.hidden), do: :rand.normal()
    embedding = Tensor.from_binary(floats(values), :f32, {vocab, n.hidden})

    layer =
      ~w(norm1 norm2 q_norm k_norm q_proj k_proj v_proj o_proj gate_proj up_proj down_proj)
      |> Enum.map(&t[&1])
      |> List.to_tuple()

    caches = for _ <- 1..2, do: Tensor.zeros({1, n.kv_heads, 40, n.head_dim}, :f32)
    {embedding, [layer], [List.to_tuple(caches)], t["norm1"]}
  end

  defp chunk(t, n, first, offset, count, {embedding, layers, kv, norm}) do
    ids = Tensor.from_binary(<<first::32-signed-native>>, :s32, {1, 1})

    {tokens, ^kv} =
      Native.forward_greedy_chunk_dense(
        ids,
        embedding,
        layers,
        kv,
        norm,
        embedding,
        offset,
        count,
        n.scale,
        n.head_dim,
        n.theta,
        n.eps
      )

    _ = t
    assert tokens.type == :u32
    assert tokens.shape == {count}
    for <<id::32-native <- Tensor.to_binary(tokens)>>, do: id
  end

  test "a chunk of tokens is the tokens one by one, and the layers and the head by hand" do
    {t, n} = golden(0)
    at_once = chunk(t, n, 7, 0, 30, tiny(t, n))
    {embedding, layers, kv, norm} = tiny(t, n)

    {one_by_one, _} =
      Enum.map_reduce(0..29, 7, fn offset, id ->
        [next] = chunk(t, n, id, offset, 1, {embedding, layers, kv, norm})
        {next, next}
      end)

    assert at_once == one_by_one

    # By hand: embedding, layer, LM head.
    {_, _, [{k, v}], _} = tiny(t, n)
    rows = Tensor.to_binary(embedding)
    size = n.hidden * 4
    [{norm1, norm2, q_norm, k_norm, q, kp, vp, o, gate, up, down}] = layers

    {by_hand, _} =
      Enum.map_reduce(0..29, 7, fn offset, id ->
        hidden = Tensor.from_binary(binary_part(rows, id * size, size), :f32, {1, 1, n.hidden})

        {token, _} =
          Native.forward_greedy_dense(
            hidden,
            layers,
            kv,
            norm,
            embedding,
            offset,
            n.scale,
            n.head_dim,
            n.theta,
            n.eps
          )

        {out, _, _} =
          Native.layer_dense(
            hidden,
            norm1,
            q,
            kp,
            vp,
            o,
            q_norm,
            k_norm,
            k,
            v,
            norm2,
            gate,
            up,
            down,
            offset,
            n.scale,
            n.head_dim,
            n.theta,
            n.eps
          )

        greedy = Native.final_greedy(out, norm, embedding, n.eps)
        assert Tensor.to_binary(greedy) == Tensor.to_binary(token)
        assert token.shape == {1}
        <<next::32-native>> = Tensor.to_binary(token)
        {next, next}
      end)

    assert at_once == by_hand
  end

  test "a chunk that has no room is refused as a whole, before a token of it" do
    {t, n} = golden(0)
    {_, _, [{k, _}], _} = state = tiny(t, n)
    before = Tensor.to_binary(k)

    assert_raise ArgumentError,
                 ~r/^layer 0 capacity: 40 tokens are fewer than the 41 that offset 11 \+ 30/,
                 fn ->
                   chunk(t, n, 7, 11, 30, state)
                 end

    assert Tensor.to_binary(k) == before

    for {count, message} <- [{0, ~r/count: must be 1 to 4096, got 0/}, {4097, ~r/got 4097/}] do
      assert_raise ArgumentError, message, fn -> chunk(t, n, 7, 0, count, state) end
    end

    # The smallest cache sets the limit.
    {embedding, layers, [pair], norm} = state
    few = for _ <- 1..2, do: Tensor.zeros({1, n.kv_heads, 4, n.head_dim}, :f32)
    short = {embedding, layers ++ layers, [pair, List.to_tuple(few)], norm}

    assert_raise ArgumentError, ~r/^layer 1 capacity: 4 tokens are fewer than the 8/, fn ->
      chunk(t, n, 7, 0, 8, short)
    end

    assert Tensor.to_binary(k) == before

    # An offset in a tensor is clamped for all tokens.
    far = Tensor.from_binary(<<1000::32-signed-native>>, :s32, {1})
    assert length(chunk(t, n, 7, far, 30, state)) == 30
    assert_raise ArgumentError, ~r/ids/, fn -> chunk(t, n, 50, 0, 2, tiny(t, n)) end
  end

  test "layers and caches that are none are named" do
    {t, n} = golden(0)
    {embedding, [layer], [pair], norm} = tiny(t, n)

    for {layers, caches, message} <- [
          {[], [], ~r/^layers: must be 1 to 512, got none/},
          {List.duplicate(layer, 513), [pair], ~r/^layers: must be a list of at most 512/},
          {[layer], [], ~r/^kv_cache: must be 1 pairs, as many as layers, got 0/},
          {[layer, Tuple.delete_at(layer, 0)], [pair, pair],
           ~r/^layers\[1\]: must be a tuple of 11/},
          {[layer], [{elem(pair, 0)}], ~r/^kv_cache\[0\]: must be a pair/},
          {[put_elem(layer, 4, :none)], [pair],
           ~r/^q_proj: must be a tensor or a linear, got none/},
          {[layer], [put_elem(pair, 1, embedding)], ~r/^layer 0 v_cache: rank must be 4, got 2/},
          {:layers, [pair], ~r/^layers: must be a list, got layers/},
          {[layer, layer], [pair, pair], ~r/overlaps/}
        ] do
      assert_raise ArgumentError, message, fn ->
        chunk(t, n, 7, 0, 3, {embedding, layers, caches, norm})
      end
    end
  end

  test "what is wrong is named as the library names it" do
    {t, n} = golden(0)
    h = n.hidden
    narrow = Tensor.zeros({h + 1, n.intermediate}, :f32)

    assert_raise ArgumentError, "gate_proj: input width must be #{h}, got #{h + 1}", fn ->
      compute("mlp", %{t | "gate_proj" => narrow}, n)
    end

    assert_raise ArgumentError, ~r/^hidden: rank must be 3, got 1/, fn ->
      compute("mlp", %{t | "hidden" => Tensor.zeros({h}, :f32)}, n)
    end

    assert_raise ArgumentError, ~r/^capacity: .* tokens are fewer than the/, fn ->
      compute("attention_block", t, %{n | offset: 0x7FFFFFFF})
    end

    assert_raise ArgumentError, ~r/^offset/, fn ->
      compute("attention_block", t, %{n | offset: -1})
    end

    assert_raise ArgumentError, ~r/^head_dim: must be #{n.head_dim}/, fn ->
      compute("attention_block", t, %{n | head_dim: 6})
    end

    assert_raise ArgumentError, ~r/^eps/, fn -> compute("mlp", t, %{n | eps: 0}) end

    assert_raise ArgumentError, ~r/^eps: must be a number, got nil/, fn ->
      compute("mlp", t, %{n | eps: nil})
    end

    assert_raise ArgumentError, "norm: must be a tensor, got 3", fn ->
      compute("mlp", %{t | "norm2" => 3}, n)
    end

    assert_raise ArgumentError, "norm: must be a tensor, got a linear", fn ->
      compute("mlp", %{t | "norm2" => Linear.pack(t["gate_proj"])}, n)
    end

    # A wrapped binary is read only, so it cannot be a cache.
    binary = Tensor.to_binary(t["k_cache"])
    wrapped = Tensor.from_binary(binary, :f32, t["k_cache"].shape, wrap: true)
    [_, v] = caches(t)

    assert_raise ArgumentError, ~r/^k_cache: .*read-only/, fn ->
      Native.kv_cache_attention(
        t["q"],
        t["k"],
        t["v"],
        wrapped,
        v,
        n.offset,
        n.scale,
        n.head_dim,
        n.theta
      )
    end

    assert Tensor.to_binary(wrapped) == binary
  end

  test "operands of two devices are refused" do
    {t, n} = golden(0)
    other = Tensor.zeros({n.hidden}, :f32, device: :ref)

    assert_raise ArgumentError, ~r/^norm: .*device/, fn ->
      compute("mlp", %{t | "norm2" => other}, n)
    end
  end

  test "a freed operand is named" do
    {t, n} = golden(0)
    tensor = Tensor.zeros({n.hidden}, :f32)
    :ok = Quern.free(tensor)
    :ok = Quern.free(tensor)

    assert_raise ArgumentError, "norm: is a tensor that was freed", fn ->
      compute("mlp", %{t | "norm2" => tensor}, n)
    end
  end
end
