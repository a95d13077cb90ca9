# SPDX-License-Identifier: Apache-2.0
defmodule Quern.TestCase do
  @moduledoc false
  # Test data, reference results from C, and waiting for asynchronous effects.
  use ExUnit.CaseTemplate

  using do
    quote do
      import Quern.TestCase
    end
  end

  @root Path.expand("../../../..", __DIR__)

  def root, do: @root
  def demo, do: Path.join(@root, "models/demo")
  def data(path), do: Path.join([@root, "tests/data", path])

  def model do
    shared(:model, fn -> Quern.Model.load!(demo()) end)
  end

  def tokenizer do
    shared(:tokenizer, fn -> Quern.Tokenizer.load!(demo()) end)
  end

  # Test modules run at the same time: the first that asks makes the value, the others wait for it.
  defp shared(key, make) do
    :global.trans({{__MODULE__, key}, self()}, fn ->
      with nil <- :persistent_term.get({__MODULE__, key}, nil) do
        value = make.()
        :persistent_term.put({__MODULE__, key}, value)
        value
      end
    end)
  end

  # The output lines of digests.c, split into words.
  def digests do
    shared(:digests, fn ->
      config = System.get_env("CONFIG", "release")
      arguments = ["-s", "CONFIG=#{config}", "nif-digests"]
      env = [{"MAKEFLAGS", nil}, {"MAKELEVEL", nil}, {"LD_PRELOAD", nil}]
      {output, 0} = System.cmd("make", arguments, cd: @root, env: env, stderr_to_stdout: true)
      if output != "", do: IO.puts(output)
      program = Path.join(@root, "build/#{config}/bindings/elixir/test/digests")
      # The preloaded sanitizer is only for the VM.
      {lines, 0} = System.cmd(program, [], cd: @root, env: [{"LD_PRELOAD", nil}])
      lines |> String.split("\n", trim: true) |> Enum.map(&String.split/1)
    end)
  end

  def sha256(data), do: :crypto.hash(:sha256, data) |> Base.encode16(case: :lower)

  def floats(list), do: for(x <- list, into: <<>>, do: <<x::float-32-native>>)
  def to_floats(binary), do: for(<<x::float-32-native <- binary>>, do: x)

  # Wait until the function returns true; destructors and burials are asynchronous.
  def eventually(fun, tries \\ 200) do
    cond do
      fun.() ->
        :ok

      tries == 0 ->
        raise ExUnit.AssertionError, message: "did not come to be: #{inspect(Quern.counts())}"

      true ->
        Process.sleep(10) && eventually(fun, tries - 1)
    end
  end
end
