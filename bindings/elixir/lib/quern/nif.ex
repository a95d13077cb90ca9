# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Nif do
  @moduledoc false
  # The functions of c_src/quern_nif.c. Those whose first argument is a reference submit a job to a worker and return `:ok`,
  # or `{:error, {status, message}}` for an invalid argument. The answer arrives as the message
  # `{ref, :ok | {:ok, value} | {:error, {status, message}}}`.

  @on_load :load

  @functions [
    version: 0,
    counts: 0,
    free: 1,
    devices: 0,
    device_open: 3,
    tensor_from_binary: 6,
    tensor_zeros: 4,
    tensor_to_binary: 2,
    tensor_reshape: 3,
    tensor_file_read: 4,
    linear_pack: 4,
    linear_quantize: 5,
    linear_pack_quantized: 8,
    mlp: 7,
    kv_attention: 9,
    attention_residual: 4,
    attention_block: 15,
    layer: 19,
    greedy: 5,
    forward_greedy: 13,
    model_open: 4,
    session_new: 3,
    session_append: 4,
    session_rewind: 3,
    session_ids: 2,
    session_logits: 2,
    generation_new: 6,
    generation_next: 2,
    generation_stop: 2,
    tokenizer_open: 2,
    tokenizer_encode: 4,
    tokenizer_decode: 4,
    tokenizer_id: 3,
    chat_open: 3,
    chat_render: 3,
    chat_encode: 5,
    chat_ends: 3
  ]

  def load do
    :erlang.load_nif(:filename.join(:code.priv_dir(:quern), 'quern_nif'), 0)
  end

  for {name, arity} <- @functions do
    arguments = Macro.generate_arguments(arity, __MODULE__)

    def unquote(name)(unquote_splicing(arguments)) do
      _ = unquote(arguments)
      :erlang.nif_error(:not_loaded)
    end
  end
end
