# SPDX-License-Identifier: Apache-2.0
defmodule Quern.HostileTest do
  # Calls every function of the NIF with unexpected terms: it must refuse them, and the VM must survive.
  use Quern.TestCase, async: true
  alias Quern.{Nif, Tensor}

  # All but load, free and those without arguments.
  @functions Quern.Nif.__info__(:functions)
             |> Enum.reject(fn {name, arity} -> arity == 0 or name in [:load, :free] end)

  defp terms do
    [
      nil,
      true,
      :atom,
      :"",
      String.to_atom(String.duplicate("a", 255)),
      0,
      -1,
      0x7FFFFFFF,
      0x80000000,
      0x7FFFFFFFFFFFFFFF,
      0x8000000000000000,
      -0x8000000000000000,
      Integer.pow(10, 40),
      1.5,
      -1.0e308,
      "",
      "text",
      <<0>>,
      <<255, 254>>,
      <<1::3>>,
      String.duplicate("x", 70_000),
      [],
      [1 | 2],
      [1, 2, 3],
      [1.0, :x],
      Enum.to_list(1..10_000),
      {},
      {1},
      {:ids, "abc"},
      {:ids, <<1::32-native>>},
      {:neutral, [], []},
      {:neutral, [{:temperature, :x}], []},
      {:model, [{:seed, -1}], [{1, 2}]},
      {0, false, nil, false},
      {0, false, false, []},
      {1, 2, 3, 4, 5, 6, 7},
      {:table, [1.0], 1.0},
      %{},
      %{a: 1},
      make_ref(),
      self(),
      &Enum.map/2,
      Tensor.zeros({1}, :f32).ref,
      Tensor.zeros({1, 1, 1, 2}, :s32).ref,
      model().ref,
      tokenizer().ref,
      Quern.Device.default().ref,
      Quern.Linear.pack(Tensor.zeros({2, 2}, :f32)).ref
    ]
  end

  test "random arguments are refused with a message, or taken" do
    :rand.seed(:exsss, {4, 5, 6})
    terms = terms()

    for {name, arity} <- @functions, _ <- 1..150 do
      ref = make_ref()
      arguments = for _ <- 2..arity//1, do: Enum.random(terms)

      case apply(Nif, name, [ref | arguments]) do
        :ok ->
          assert_receive {^ref, answer}, 30_000
          check(answer)

        answer ->
          assert {:error, {status, _}} = answer
          assert status in [:einval, :enomem]
          check(answer)
      end
    end

    assert_raise ArgumentError, fn -> Nif.free(:x) end
    assert_raise ArgumentError, fn -> Nif.free(make_ref()) end
    refute_receive _anything, 10
  end

  # The cost of an error message must not depend on the size of the term: printing one of these takes tens of
  # milliseconds, and so many calls would take longer than a test may.
  test "large terms at the wrong place" do
    huge = [
      Integer.pow(7, 100_000),
      Map.new(1..200_000, &{&1, &1}),
      Enum.to_list(1..500_000),
      List.duplicate(?a, 500_000),
      String.duplicate("é", 5_000_000),
      List.to_tuple(Enum.to_list(1..100_000)),
      String.to_atom(String.duplicate("é", 200))
    ]

    for term <- huge do
      for _ <- 1..10_000 do
        assert {:error, {:einval, message}} =
                 Nif.mlp(make_ref(), term, term, term, term, term, term)

        assert {:error, _} = Nif.tensor_zeros(make_ref(), term, :f32, term)
        assert message =~ ~r/^hidden: must be a tensor, got an? [a-z ]+$/
      end
    end
  end

  defp check(:ok), do: :ok
  defp check({:ok, _value}), do: :ok

  defp check({:error, {status, message}}) do
    assert is_atom(status)
    assert String.valid?(message)
    assert message != "" and not String.contains?(message, "\n")
    assert byte_size(message) < 256
  end
end
