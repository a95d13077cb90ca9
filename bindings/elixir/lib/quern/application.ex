# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    Supervisor.start_link([Quern.Device.Default], strategy: :one_for_one, name: Quern.Supervisor)
  end

  @impl true
  def stop(_state), do: Quern.Device.Default.forget()
end
