# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Job do
  @moduledoc false
  # Jobs of the NIF and their answers.

  # Begin a job and wait for its answer: `:ok`, `{:ok, value}` or `{:error, {status, message}}`. All in one function: where
  # the VM sees the reference made and awaited, it does not look at messages that were there before.
  defmacro run(name, arguments) do
    quote do
      ref = make_ref()

      case Quern.Nif.unquote(name)(ref, unquote_splicing(arguments)) do
        :ok ->
          receive do
            {^ref, answer} -> answer
          end

        {:error, _reason} = error ->
          error
      end
    end
  end

  # The same; the value, or it raises.
  defmacro run!(name, arguments) do
    quote do
      Quern.Job.value!(Quern.Job.run(unquote(name), unquote(arguments)))
    end
  end

  def receive_answer(ref) do
    receive do
      {^ref, answer} -> answer
    end
  end

  def value!(:ok), do: :ok
  def value!({:ok, value}), do: value
  def value!({:error, reason}), do: Quern.Error.raise!(reason)

  # `{:ok, value}` or `{:error, error}`, as functions return it that open something; a wrong argument raises.
  def result({:ok, value}), do: {:ok, value}
  def result({:error, {:einval, message}}), do: raise(ArgumentError, message)
  def result({:error, reason}), do: {:error, Quern.Error.new(reason)}

  def bang!({:ok, value}), do: value
  def bang!({:error, error}), do: raise(error)

  # Ids as the NIF takes them: to make them of a long list is the work of a process, which the VM can interrupt.
  def pack_ids(ids) when is_list(ids) do
    for id <- ids, into: <<>> do
      if not is_integer(id) or id < -0x80000000 or id > 0x7FFFFFFF do
        raise ArgumentError, "ids: must be whole numbers of 32 bits, got #{inspect(id)}"
      end

      <<id::32-signed-native>>
    end
  end

  def pack_ids(other), do: raise(ArgumentError, "ids: must be a list, got #{inspect(other)}")
end
