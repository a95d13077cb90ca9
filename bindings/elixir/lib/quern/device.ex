# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Device do
  @moduledoc """
  A compute device: it owns the threads, the workspace and the choice of kernels.

  Most programs only need `default/1`. Functions that accept a device also accept a name: `:cpu` (threaded, vectorized),
  `:ref` (plain C with double accumulation, the reference for tests of all others), or `:gpu`, an alias of `:cuda`.
  """
  require Quern.Job
  alias Quern.{Error, Job}

  defstruct [:ref, :name, :isa, :description, :n_thread, :memory_total_bytes]

  @type t :: %__MODULE__{
          ref: reference,
          name: atom,
          isa: String.t(),
          description: String.t(),
          n_thread: pos_integer,
          memory_total_bytes: non_neg_integer
        }

  @doc """
  Open a new, unshared device.

  Options:

    * `:threads` - number of compute threads; 0 (default): one for each CPU that the VM may use
    * `:pin` - pin each of them to a CPU
    * `:isa` - the highest ISA level to use, for example `"avx2"`
    * `:compose` - run fused primitives as compositions of smaller ones, for verification
  """
  @spec open(atom, keyword) :: {:ok, t} | {:error, Error.t()}
  def open(name \\ :cpu, opts \\ []) do
    opts = Keyword.validate!(opts, threads: 0, pin: false, isa: nil, compose: false)
    options = {opts[:threads], opts[:pin], opts[:isa], opts[:compose]}

    with {:ok, {ref, info}} <-
           Job.result(Job.run(:device_open, [to_string(backend(name)), options])) do
      {:ok, struct!(%__MODULE__{ref: ref}, info)}
    end
  end

  @doc "Like `open/2`, but raises."
  @spec open!(atom, keyword) :: t
  def open!(name \\ :cpu, opts \\ []), do: Job.bang!(open(name, opts))

  @doc """
  The shared device, used by all calls without an explicit device; opened on first use.

  `config :quern, device: [threads: 4]` sets its options.

      iex> Quern.Device.default().name
      :cpu
  """
  @spec default(atom) :: t
  def default(name \\ :cpu), do: get!(name)

  @doc false
  # Resolve a name to a device; a device is returned as is.
  def fetch(%__MODULE__{} = device), do: {:ok, device}
  def fetch(name) when is_atom(name), do: __MODULE__.Default.fetch(backend(name))

  def fetch(other) do
    raise ArgumentError, "device: must be a name or a Quern.Device, got #{inspect(other)}"
  end

  @doc false
  def get!(device), do: Job.bang!(fetch(device))

  defp backend(:gpu), do: :cuda
  defp backend(name), do: name

  defimpl Inspect do
    def inspect(device, _opts) do
      "#Quern.Device<#{device.name} #{device.isa}, #{device.n_thread} threads>"
    end
  end
end

defmodule Quern.Device.Default do
  @moduledoc false
  # Opens each of the shared devices once.
  use GenServer

  @names [:cpu, :ref, :cuda]

  def start_link(_opts), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  def fetch(name) do
    case :persistent_term.get({__MODULE__, name}, nil) do
      nil -> GenServer.call(__MODULE__, {:open, name}, :infinity)
      device -> {:ok, device}
    end
  end

  def shared?(%Quern.Device{ref: ref}) do
    Enum.any?(@names, &match?(%{ref: ^ref}, :persistent_term.get({__MODULE__, &1}, nil)))
  end

  def forget do
    Enum.each(@names, &:persistent_term.erase({__MODULE__, &1}))
  end

  @impl true
  def init(nil) do
    forget()
    {:ok, nil}
  end

  @impl true
  def handle_call({:open, name}, _from, state) do
    {:reply, find(name) || open(name), state}
  end

  defp find(name) do
    with %Quern.Device{} = device <- :persistent_term.get({__MODULE__, name}, nil),
         do: {:ok, device}
  end

  defp open(name) do
    with {:ok, device} <- Quern.Device.open(name, Application.get_env(:quern, :device, [])) do
      if name in @names, do: :persistent_term.put({__MODULE__, name}, device)
      {:ok, device}
    end
  rescue
    error in ArgumentError -> {:error, Quern.Error.new({:einval, error.message})}
  end
end
