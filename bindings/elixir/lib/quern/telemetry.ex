# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Telemetry do
  @moduledoc false
  # Emits :telemetry events if the host application has it.
  @compile {:no_warn_undefined, :telemetry}

  def execute(event, measurements, metadata) do
    if Code.ensure_loaded?(:telemetry), do: :telemetry.execute(event, measurements, metadata)
    :ok
  end
end
