# SPDX-License-Identifier: Apache-2.0
defmodule Quern.MixProject do
  use Mix.Project

  # The version is taken from the library.
  @version "../../include/quern/version.h"
           |> Path.expand(__DIR__)
           |> File.read!()
           |> then(&Regex.run(~r/QN_VERSION_STRING "(.*)"/, &1, capture: :all_but_first))
           |> hd()

  def project do
    [
      app: :quern,
      version: @version,
      elixir: "~> 1.14",
      compilers: [:quern_nif] ++ Mix.compilers(),
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      start_permanent: Mix.env() == :prod,
      description: "Qwen3 as native, fused primitives, from safetensors to text",
      package: [licenses: ["Apache-2.0"]],
      # No dependencies: Nx and :telemetry are used if the host application has them.
      deps: []
    ]
  end

  def application do
    [
      extra_applications: if(Mix.env() == :test, do: [:logger, :crypto], else: [:logger]),
      mod: {Quern.Application, []}
    ]
  end
end

defmodule Mix.Tasks.Compile.QuernNif do
  @moduledoc false
  use Mix.Task.Compiler

  # CONFIG selects the build of the library: release (the default), debug or asan.
  @impl true
  def run(_args) do
    jobs = "-j#{System.schedulers_online()}"
    out = Path.join(Mix.Project.app_path(), "priv")
    config = System.get_env("CONFIG", "release")
    # Do not pass on the flags of a make that runs mix, nor a sanitizer preloaded for the VM.
    env = [{"MAKEFLAGS", nil}, {"MAKELEVEL", nil}, {"LD_PRELOAD", nil}]
    arguments = ["-s", jobs, "OUT=#{out}", "CONFIG=#{config}"]

    case System.cmd("make", arguments, cd: __DIR__, env: env, stderr_to_stdout: true) do
      {_output, 0} ->
        {:ok, []}

      {output, _status} ->
        Mix.raise("quern_nif.so could not be built:\n" <> output)
    end
  end
end
