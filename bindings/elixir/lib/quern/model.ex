# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Model do
  @moduledoc """
  A dense Qwen3 checkpoint (a Hugging Face directory) loaded on a device. Immutable; any number of processes may use it.
  """
  require Logger
  require Quern.Job
  alias Quern.{Device, Error, Job, Tensor}

  defstruct [:ref, :path, :config, :device]

  @type t :: %__MODULE__{ref: reference, path: String.t(), config: map, device: Device.t()}

  @doc """
  Load a model.

  Options:

    * `:device` - a name or a `Quern.Device`; default `:cpu`
    * `:arith` - `:auto` (default), `:f32`, `:bf16` or `:int8`
    * `:quantize` - `:q8` or `:q4`: quantize dense weights on loading
    * `:type` - as in EMLX's loader. Weights keep the type they have in the files, so only `nil` (default) or that type is
      accepted

  The config is a map: `n_layer`, `n_head`, `n_kv_head`, `head_dim`, `d_model`, `d_ff`, `n_vocab`, `n_ctx_max`, `rms_eps`,
  `rope_theta`, `tied`, `type`, `bits`, `group`, `arith`, `eos`, `n_parameter`, `file_bytes`.
  """
  @spec load(Path.t(), keyword) :: {:ok, t} | {:error, Error.t()}
  def load(path, opts \\ []) do
    opts = Keyword.validate!(opts, device: :cpu, arith: :auto, quantize: nil, type: nil)
    type = opts[:type] && Tensor.type!(opts[:type])
    path = path |> IO.chardata_to_string() |> Path.expand()

    with {:ok, device} <- Device.fetch(opts[:device]),
         options = {opts[:arith], opts[:quantize]},
         {:ok, {ref, config, remarks}} <-
           Job.result(Job.run(:model_open, [device.ref, path, options])) do
      for remark <- Enum.reverse(remarks), do: Logger.info("quern: " <> remark)
      check_type(%__MODULE__{ref: ref, path: path, config: config, device: device}, type)
    end
  end

  @doc "Like `load/2`, but raises."
  @spec load!(Path.t(), keyword) :: t
  def load!(path, opts \\ []), do: Job.bang!(load(path, opts))

  defp check_type(model, nil), do: {:ok, model}
  defp check_type(%{config: %{type: type}} = model, type), do: {:ok, model}

  defp check_type(%{config: %{type: type}} = model, wanted) do
    Quern.free(model)
    message = "type: the weights are #{type} and are kept as they are, not #{wanted}"
    {:error, Error.new({:eunsupported, message})}
  end

  defimpl Inspect do
    def inspect(model, _opts) do
      millions = Float.round(model.config.n_parameter / 1.0e6, 1)

      "#Quern.Model<#{Path.basename(model.path)}, #{millions} M parameters, #{model.config.type}, #{model.device.name}>"
    end
  end
end
