# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Native do
  @moduledoc """
  The Qwen3 layer as fused primitives over `{B, N_kv, T_max, D}` caches, with the names and operands of EMLX.

  Letters: B batch, T new tokens, H hidden width, I MLP width, Nq query heads, Nkv key/value heads, D head width, C cache
  capacity in tokens, V vocabulary. Tensors are `Quern.Tensor`s; each linear is a plain `{in, out}` tensor or a
  `Quern.Linear`. Hidden states and caches may independently be f32, bf16 or f16; the result has the type of
  `hidden` (of `query` in `kv_cache_attention/9`).

    * `offset` is the position of the first new token: an integer for all rows, a list with one per row, or a tensor
      (`:s32` or `:s64`, `{1}` or `{B}`), whose values are clamped to the capacity of the cache.
    * `theta` is a number; or `[theta: t, factor: f, original_ctx: n]`, which is YaRN (`:beta_fast`, `:beta_slow` and
      `:attention_factor` override the usual values); or `[table: inverse_frequencies, attention_factor: a]`.
    * `scale` is D^-0.5 in Qwen3. `head_dim` must be D.

  Caches are updated in place, and the returned caches are those passed in. All operands are checked before anything is
  written; an invalid one raises `ArgumentError` and leaves every output and cache unchanged.

      iex> alias Quern.{Native, Tensor}
      iex> hidden = Tensor.from_binary(<<1.0::float-32-native, -1.0::float-32-native>>, :f32, {1, 1, 2})
      iex> identity = Tensor.from_binary(for(x <- [1.0, 0.0, 0.0, 1.0], into: <<>>, do: <<x::float-32-native>>), :f32, {2, 2})
      iex> Tensor.to_binary(Native.attention_residual(hidden, hidden, identity))
      <<2.0::float-32-native, -2.0::float-32-native>>
  """
  require Quern.Job
  alias Quern.{Job, Linear, Tensor}

  @type linear :: Tensor.t() | Linear.t()
  @type offset :: integer | [integer] | Tensor.t()
  @type cache_pair :: {Tensor.t(), Tensor.t()}

  @doc "`hidden + down(silu(x·gate) * (x·up))`, `x = rms(hidden, norm)`. hidden {B,T,H}, norm {H}, gate and up {H,I}, down {I,H}."
  @spec mlp(Tensor.t(), Tensor.t(), linear, linear, linear, number) :: Tensor.t()
  def mlp(hidden, norm, gate_proj, up_proj, down_proj, eps) do
    Job.run!(:mlp, [ref(hidden), ref(norm), ref(gate_proj), ref(up_proj), ref(down_proj), eps])
    |> Tensor.made(device(hidden))
  end

  @doc """
  RoPE, cache write and causal grouped-query attention: `{attention {B,T,Nq·D}, k_cache, v_cache}`.

  query {B,T,Nq,D}, key and value {B,T,Nkv,D}, normed but not rotated; caches {B,Nkv,C,D}.
  """
  @spec kv_cache_attention(
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          offset,
          number,
          pos_integer,
          number | keyword
        ) :: {Tensor.t(), Tensor.t(), Tensor.t()}
  def kv_cache_attention(query, key, value, k_cache, v_cache, offset, scale, head_dim, theta) do
    check_head_dim!(query, "query", 3, head_dim)
    {q, k, v, k_ref, v_ref} = {ref(query), ref(key), ref(value), ref(k_cache), ref(v_cache)}

    attention =
      Job.run!(:kv_attention, [q, k, v, k_ref, v_ref, offset(offset), scale, rope(theta)])

    {Tensor.made(attention, device(query)), k_cache, v_cache}
  end

  @doc "Like `kv_cache_attention/9`, with the offset in a tensor, which is not read back to the host."
  @spec kv_cache_attention_tensor_offset(
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          Tensor.t(),
          number,
          pos_integer,
          number | keyword
        ) :: {Tensor.t(), Tensor.t(), Tensor.t()}
  def kv_cache_attention_tensor_offset(
        query,
        key,
        value,
        k_cache,
        v_cache,
        %Tensor{} = offset,
        scale,
        head_dim,
        theta
      ) do
    kv_cache_attention(query, key, value, k_cache, v_cache, offset, scale, head_dim, theta)
  end

  def kv_cache_attention_tensor_offset(_, _, _, _, _, offset, _, _, _) do
    raise ArgumentError, "offset: must be a tensor, got #{inspect(offset)}"
  end

  @doc "`hidden + attention·projection`. hidden {B,T,H}, attention {B,T,A}, projection {A,H}."
  @spec attention_residual(Tensor.t(), Tensor.t(), linear) :: Tensor.t()
  def attention_residual(hidden, attention, projection) do
    Job.run!(:attention_residual, [ref(hidden), ref(attention), ref(projection)])
    |> Tensor.made(device(hidden))
  end

  @doc """
  The attention half of a layer: `{hidden, k_cache, v_cache}`.

  norm {H}, q_proj {H,Nq·D}, k_proj and v_proj {H,Nkv·D}, o_proj {Nq·D,H}, q_norm and k_norm {D}, caches {B,Nkv,C,D}.
  """
  def attention_block(
        hidden,
        norm,
        q_proj,
        k_proj,
        v_proj,
        o_proj,
        q_norm,
        k_norm,
        k_cache,
        v_cache,
        offset,
        scale,
        head_dim,
        theta,
        eps
      ) do
    check_head_dim!(q_norm, "q_norm", 0, head_dim)

    out =
      Job.run!(:attention_block, [
        ref(hidden),
        ref(norm),
        ref(q_proj),
        ref(k_proj),
        ref(v_proj),
        ref(o_proj),
        ref(q_norm),
        ref(k_norm),
        ref(k_cache),
        ref(v_cache),
        offset(offset),
        scale,
        rope(theta),
        eps
      ])

    {Tensor.made(out, device(hidden)), k_cache, v_cache}
  end

  @doc """
  A whole layer, the attention block and then the MLP: `{hidden, k_cache, v_cache}`.

  Operands as in `attention_block/15` and `mlp/6`; norm1 is the attention's, norm2 the MLP's.
  """
  def layer_dense(
        hidden,
        norm1,
        q_proj,
        k_proj,
        v_proj,
        o_proj,
        q_norm,
        k_norm,
        k_cache,
        v_cache,
        norm2,
        gate_proj,
        up_proj,
        down_proj,
        offset,
        scale,
        head_dim,
        theta,
        eps
      ) do
    check_head_dim!(q_norm, "q_norm", 0, head_dim)

    out =
      Job.run!(:layer, [
        ref(hidden),
        ref(norm1),
        ref(q_proj),
        ref(k_proj),
        ref(v_proj),
        ref(o_proj),
        ref(q_norm),
        ref(k_norm),
        ref(k_cache),
        ref(v_cache),
        ref(norm2),
        ref(gate_proj),
        ref(up_proj),
        ref(down_proj),
        offset(offset),
        scale,
        rope(theta),
        eps
      ])

    {Tensor.made(out, device(hidden)), k_cache, v_cache}
  end

  @doc """
  `layer_dense/19` under EMLX's name for layers whose linears may each be dense or quantized.

  A quantized one is a `Quern.Linear`.
  """
  defdelegate layer_generalized(
                hidden,
                norm1,
                q_proj,
                k_proj,
                v_proj,
                o_proj,
                q_norm,
                k_norm,
                k_cache,
                v_cache,
                norm2,
                gate_proj,
                up_proj,
                down_proj,
                offset,
                scale,
                head_dim,
                theta,
                eps
              ),
              to: __MODULE__,
              as: :layer_dense

  @doc "The next token of each row, u32 {B}: argmax of the last position's logits. hidden {B,T,H}, norm {H}, lm_head {V,H}."
  @spec final_greedy(Tensor.t(), Tensor.t(), linear, number) :: Tensor.t()
  def final_greedy(hidden, norm, lm_head, eps) do
    Job.run!(:greedy, [ref(hidden), ref(norm), ref(lm_head), eps]) |> Tensor.made(device(hidden))
  end

  @doc """
  All layers and the LM head: `{token u32 {B}, kv_cache}`.

  layers is a list of `{norm1, norm2, q_norm, k_norm, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj}`,
  kv_cache one of `{k_cache, v_cache}`.
  """
  def forward_greedy_dense(
        hidden,
        layers,
        kv_cache,
        norm,
        lm_head,
        offset,
        scale,
        head_dim,
        theta,
        eps
      ) do
    check_layers!(layers, head_dim)

    token =
      Job.run!(:forward_greedy, [
        ref(hidden),
        :hidden,
        nil,
        refs(layers),
        refs(kv_cache),
        ref(norm),
        ref(lm_head),
        offset(offset),
        1,
        scale,
        rope(theta),
        eps
      ])

    {Tensor.made(token, device(hidden)), kv_cache}
  end

  @doc """
  `count` greedy steps, 1 to 4096, each token fed back: `{tokens, kv_cache}`, tokens u32 `{count}`, or `{B, count}` for
  several rows.

  input_ids {B,1}, embed_tokens {V,H}. Each step is one turn of the device.
  """
  def forward_greedy_chunk_dense(
        input_ids,
        embed_tokens,
        layers,
        kv_cache,
        norm,
        lm_head,
        offset,
        count,
        scale,
        head_dim,
        theta,
        eps
      ) do
    check_layers!(layers, head_dim)

    tokens =
      Job.run!(:forward_greedy, [
        ref(input_ids),
        :ids,
        ref(embed_tokens),
        refs(layers),
        refs(kv_cache),
        ref(norm),
        ref(lm_head),
        offset(offset),
        count,
        scale,
        rope(theta),
        eps
      ])

    {Tensor.made(tokens, device(input_ids)), kv_cache}
  end

  # The NIF refuses anything else and names the operand.
  defp ref(%{ref: ref}), do: ref
  defp ref(other), do: other

  defp refs(list) when is_list(list) do
    Enum.map(list, fn
      tuple when is_tuple(tuple) ->
        tuple |> Tuple.to_list() |> Enum.map(&ref/1) |> List.to_tuple()

      other ->
        other
    end)
  end

  defp refs(other), do: other

  defp device(%Tensor{device: device}), do: device

  defp offset(%Tensor{ref: ref}), do: ref
  defp offset(other), do: other

  defp rope([{key, _} | _] = options) when is_atom(key) do
    case Keyword.pop(options, :table) do
      {nil, options} ->
        options =
          Keyword.validate!(options, [
            :theta,
            :factor,
            :original_ctx,
            beta_fast: 0,
            beta_slow: 0,
            attention_factor: 0
          ])

        {:yarn, options[:theta], options[:factor], options[:original_ctx], options[:beta_fast],
         options[:beta_slow], options[:attention_factor]}

      {table, options} ->
        {:table, table, Keyword.validate!(options, attention_factor: 0)[:attention_factor]}
    end
  end

  defp rope(theta), do: theta

  # The library infers D from the operand; EMLX's signature has it as an argument too.
  defp check_head_dim!(%Tensor{shape: shape}, name, axis, head_dim)
       when tuple_size(shape) > axis do
    if elem(shape, axis) != head_dim do
      raise ArgumentError,
            "head_dim: must be #{elem(shape, axis)} like that of #{name}, got #{inspect(head_dim)}"
    end
  end

  defp check_head_dim!(_other, _name, _axis, _head_dim), do: :ok

  defp check_layers!([{_, _, q_norm, _, _, _, _, _, _, _, _} | _], head_dim) do
    check_head_dim!(q_norm, "q_norm", 0, head_dim)
  end

  defp check_layers!(_other, _head_dim), do: :ok
end
