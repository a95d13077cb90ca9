# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Json do
  @moduledoc false
  # JSON encoder for messages and tools. Encoding only, so no library is needed.

  @spec encode(term) :: iodata
  def encode(nil), do: "null"
  def encode(value) when is_boolean(value), do: Atom.to_string(value)
  def encode(value) when is_atom(value), do: string(Atom.to_string(value))
  def encode(value) when is_integer(value), do: Integer.to_string(value)
  def encode(value) when is_float(value), do: Float.to_string(value)
  def encode(value) when is_binary(value), do: string(value)
  def encode([]), do: "[]"

  def encode([{key, _value} | _] = pairs) when is_atom(key) or is_binary(key), do: object(pairs)

  def encode(list) when is_list(list),
    do: [?[, list |> Enum.map(&encode/1) |> Enum.intersperse(?,), ?]]

  def encode(%{__struct__: name}),
    do: raise(ArgumentError, "messages: a #{inspect(name)} cannot be encoded as JSON")

  def encode(map) when is_map(map), do: object(Map.to_list(map))

  def encode(other),
    do: raise(ArgumentError, "messages: #{inspect(other)} cannot be encoded as JSON")

  defp object(pairs) do
    fields = Enum.map(pairs, fn {key, value} -> [string(to_string(key)), ?:, encode(value)] end)
    [?{, Enum.intersperse(fields, ?,), ?}]
  end

  defp string(text) do
    if not String.valid?(text), do: raise(ArgumentError, "messages: a text is not UTF-8")
    [?", escape(text, 0, 0, text), ?"]
  end

  # Copy runs of plain characters unchanged.
  defp escape(<<c, rest::binary>>, skip, length, text) when c in [?", ?\\] or c < 0x20 do
    [binary_part(text, skip, length), code(c) | escape(rest, skip + length + 1, 0, text)]
  end

  defp escape(<<_, rest::binary>>, skip, length, text), do: escape(rest, skip, length + 1, text)
  defp escape(<<>>, skip, length, text), do: [binary_part(text, skip, length)]

  defp code(?"), do: ~S(\")
  defp code(?\\), do: ~S(\\)
  defp code(c), do: ["\\u", c |> Integer.to_string(16) |> String.pad_leading(4, "0")]
end
