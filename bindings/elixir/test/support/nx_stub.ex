# SPDX-License-Identifier: Apache-2.0
# Stubs of optional dependencies, with only the functions that Quern calls.
unless Code.ensure_loaded?(Nx) do
  defmodule Nx.Tensor do
    @moduledoc false
    defstruct [:binary, :type, :shape, :backend]
  end

  defmodule Nx do
    @moduledoc false
    def shape(%Nx.Tensor{shape: shape}), do: shape
    def type(%Nx.Tensor{type: type}), do: type
    def to_binary(%Nx.Tensor{binary: binary}), do: binary

    def from_binary(binary, {_, bits} = type, opts) do
      n = div(byte_size(binary) * 8, bits)
      %Nx.Tensor{binary: binary, type: type, shape: {n}, backend: opts[:backend]}
    end

    def reshape(%Nx.Tensor{shape: old} = tensor, shape) do
      true = Tuple.product(old) == Tuple.product(shape)
      %{tensor | shape: shape}
    end
  end
end

unless Code.ensure_loaded?(:telemetry) do
  defmodule :telemetry do
    @moduledoc false
    # Every event is sent to the process registered under this name.
    def execute(event, measurements, metadata) do
      with pid when is_pid(pid) <- Process.whereis(:telemetry_test) do
        send(pid, {:event, event, measurements, metadata})
      end

      :ok
    end
  end
end
