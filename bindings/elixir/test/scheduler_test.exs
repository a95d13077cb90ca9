# SPDX-License-Identifier: Apache-2.0
defmodule Quern.SchedulerTest do
  # A call submits its job to a worker and returns: no scheduler computes. How late timers are under load is measured by
  # bench/schedulers.exs.
  use Quern.TestCase, async: false
  alias Quern.{Nif, Session, Tensor}

  @moduletag timeout: 120_000

  # Each call follows one just like it, which keeps the worker busy. A call that did its work itself would have its
  # answer in the mailbox when it returns. Several attempts: this process may be off its CPU for longer than the work takes.
  test "calls return before their work is done" do
    binary = :binary.copy(<<0>>, 64_000_000)
    text = String.duplicate("The dog and the ball. ", 200_000)
    ids = :binary.copy(<<1::32-native>>, 100_000)
    prompt = :binary.copy(<<1::32-native>>, 30)
    device = Quern.Device.default().ref
    tensor = Tensor.zeros({4096, 4096}, :f32)
    session = Session.new(model(), n_ctx: 512)

    calls = [
      from_binary: &Nif.tensor_from_binary(&1, device, binary, :f32, [16_000_000], false),
      to_binary: &Nif.tensor_to_binary(&1, tensor.ref),
      quantize: &Nif.linear_quantize(&1, tensor.ref, :in_out, :q8, :auto),
      encode: &Nif.tokenizer_encode(&1, tokenizer().ref, text, true),
      decode: &Nif.tokenizer_decode(&1, tokenizer().ref, ids, true),
      load: &Nif.model_open(&1, device, demo(), {:auto, nil}),
      append: &Nif.session_append(&1, session.ref, prompt, 512)
    ]

    for {name, call} <- calls do
      assert Enum.any?(1..8, fn _ -> returns_first?(call) end), "#{name}"
    end
  end

  defp returns_first?(call) do
    [before, ref] = [make_ref(), make_ref()]
    :ok = call.(before)
    :ok = call.(ref)
    # What this process sent to itself would come in here.
    :erlang.yield()
    {:messages, messages} = Process.info(self(), :messages)

    for ref <- [before, ref],
        do: assert_receive({^ref, answer} when answer == :ok or elem(answer, 0) == :ok, 60_000)

    not List.keymember?(messages, ref, 0)
  end
end
