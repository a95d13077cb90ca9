# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Job do
  @moduledoc false
  # Jobs of the NIF and their answers.

  # Submit a job and wait for its answer: `:ok`, `{:ok, value}` or `{:error, {status, message}}`. All in one function, so
  # that the VM sees the reference created and received on, and skips older messages in the mailbox.
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

  # The same, but returns the value or raises.
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

  # `{:ok, value}` or `{:error, error}`, for functions that open something; an invalid argument raises.
  def result({:ok, value}), do: {:ok, value}
  def result({:error, {:einval, message}}), do: raise(ArgumentError, message)
  def result({:error, reason}), do: {:error, Quern.Error.new(reason)}

  def bang!({:ok, value}), do: value
  def bang!({:error, error}), do: raise(error)

  # Pack ids for the NIF. Packing a long list is done in Elixir, where the VM can preempt it.
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
