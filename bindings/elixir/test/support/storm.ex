# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Storm do
  @moduledoc false
  # Run by test/valgrind: processes killed while they compute, objects that are collected, a node that stops during work.
  # Small, since it runs fifty times slower there.
  alias Quern.{Linear, Model, Native, Serving, Session, Tensor, TextGeneration, Tokenizer}

  def run do
    {:ok, _} = Application.ensure_all_started(:quern)
    model = Quern.TestCase.model()
    tokenizer = Quern.TestCase.tokenizer()
    before = Quern.counts()
    for round <- 1..3, do: round(round, model, tokenizer)
    Quern.TestCase.eventually(fn -> Quern.counts() == before end, 6000)
    IO.puts("storm over: #{inspect(Quern.counts())}")
    spawn(fn -> TextGeneration.run(tokenizer, model, "Once upon a time", max_new_tokens: 300) end)
    Process.sleep(300)
    System.halt(0)
  end

  defp round(n, model, tokenizer) do
    pids =
      for i <- 1..8 do
        spawn(fn ->
          case rem(i, 4) do
            0 -> TextGeneration.run(tokenizer, model, "Once upon a time", max_new_tokens: 20)
            1 -> TextGeneration.stream(tokenizer, model, "Once") |> Enum.take(3)
            2 -> tensors()
            3 -> Session.append(Session.new(Model.load!(model.path), n_ctx: 32), [1, 2, 3])
          end
        end)
      end

    {:ok, serving} =
      Serving.start_link(model: model, tokenizer: tokenizer, sessions: 1, max_len: 64)

    {:ok, _} = Serving.run(serving, "Once", max_new_tokens: 3)
    GenServer.stop(serving)
    Tokenizer.load!(model.path)
    Process.sleep(n * 100)
    Enum.each(pids, &Process.exit(&1, :kill))
  end

  defp tensors do
    binary = :binary.copy(<<0, 0, 128, 63>>, 64 * 64)
    weight = Tensor.from_binary(binary, :f32, {64, 64}, wrap: true)
    hidden = Tensor.reshape(weight, {1, 64, 64})
    Native.attention_residual(hidden, hidden, Linear.quantize(weight, :q8))
    Quern.free(weight)
    tensors()
  end
end
