# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Nx do
  @moduledoc """
  Conversion from and to `Nx.Tensor`, if the host application has Nx. Nx is not a dependency: these functions
  raise without it.

  Tested by hand with Nx 0.7.2, the last version for Elixir 1.14; the tests of this project use a stub.

      hidden = Quern.Nx.from_nx(Nx.tensor([[[1.0, 2.0]]]))
      Quern.Nx.to_nx(hidden)
  """
  @compile {:no_warn_undefined, Nx}
  alias Quern.Tensor

  @doc """
  Convert an `Nx.Tensor` to a tensor. A scalar becomes `{1}`.

  By default Nx's binary is wrapped without a copy, and the tensor is read only: fine for weights and inputs, refused for
  caches. Options: `:copy`, `true` to copy the elements; `:device`.
  """
  @spec from_nx(struct, keyword) :: Tensor.t()
  def from_nx(tensor, opts \\ []) do
    ensure!()
    opts = Keyword.validate!(opts, copy: false, device: :cpu)
    shape = if Nx.shape(tensor) == {}, do: {1}, else: Nx.shape(tensor)
    options = [wrap: not opts[:copy], device: opts[:device]]
    Tensor.from_binary(Nx.to_binary(tensor), Nx.type(tensor), shape, options)
  end

  @doc "Convert a tensor to an `Nx.Tensor`. Options are those of `Nx.from_binary/3`, such as `:backend`."
  @spec to_nx(Tensor.t(), keyword) :: struct
  def to_nx(%Tensor{} = tensor, opts \\ []) do
    ensure!()

    tensor
    |> Tensor.to_binary()
    |> Nx.from_binary(nx_type(tensor.type), opts)
    |> Nx.reshape(tensor.shape)
  end

  defp nx_type(:f32), do: {:f, 32}
  defp nx_type(:bf16), do: {:bf, 16}
  defp nx_type(:f16), do: {:f, 16}
  defp nx_type(:s32), do: {:s, 32}
  defp nx_type(:s64), do: {:s, 64}
  defp nx_type(:u32), do: {:u, 32}

  defp ensure! do
    if not Code.ensure_loaded?(Nx) do
      raise ArgumentError,
            "Nx is not available: add {:nx, \"~> 0.7\"} to the dependencies of the application"
    end
  end
end
