# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Error do
  @moduledoc """
  A failure of the library. `status` is a status name (`include/quern/status.h`) in lower case: `:einval`, `:enomem`,
  `:eio`, `:eformat`, `:eunsupported`, `:edevice`, `:elost`, `:efull`, `:ebusy`, `:ecanceled`, `:enumeric`. `message`
  is one line that names the operand or file.
  """
  defexception [:status, :message]

  @type t :: %__MODULE__{status: atom, message: String.t()}

  @doc false
  def new({status, message}), do: %__MODULE__{status: status, message: message}

  # An invalid argument is an ArgumentError: a bad value, or one that does not fit.
  @doc false
  def raise!({status, message}) when status in [:einval, :efull],
    do: raise(ArgumentError, message)

  def raise!(reason), do: raise(new(reason))
end
