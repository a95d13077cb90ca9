# SPDX-License-Identifier: Apache-2.0
defmodule Quern.Serving do
  @moduledoc """
  Text generation for many callers: a process with several sessions whose requests take turns, one step at a time.

      children = [
        {Quern.Serving, name: MyApp.Serving, model: model, tokenizer: tokenizer, sessions: 4, max_new_tokens: 200}
      ]

      Supervisor.start_link(children, strategy: :one_for_one)

      {:ok, %{results: [%{generated_text: text}]}} = Quern.Serving.run(MyApp.Serving, "Once upon a time")
      MyApp.Serving |> Quern.Serving.stream("Once upon a time") |> Enum.each(&IO.write/1)

  ## Options of the process

    * `:model`, `:tokenizer` - required
    * `:name`
    * `:sessions` - number of concurrent requests, default 4; each needs the memory of a context of `:max_len` tokens
    * `:max_queue` - how many more may wait, default 64; further ones fail with `:ebusy` at once
    * `:window` - how many steps a stream may be ahead of its reader, default 32; then it pauses, and others get the device
    * `:stall_timeout` - how many milliseconds a paused stream keeps its session without being read, default 60,000; then it
      ends with `:ecanceled`
    * all options of `Quern.TextGeneration` except `:kv_cache`, `:return_kv_cache` and `:profile_timing`: defaults for
      requests; `:kv_type` and `:n_batch` can only be set here

  If the calling process dies or a stream is abandoned, the request ends with the current step.

  ## Telemetry

  Events are emitted if the application has `:telemetry`. Their metadata are
  `%{serving: name_or_pid, id: reference}` and the keys listed:

    * `[:quern, :serving, :request, :start]` - `%{system_time, n_prompt}` when it gets a session
    * `[:quern, :serving, :request, :stop]` - `%{duration, queue_time, n_prompt, n_generated, prompt_s, first_token_s,
      generate_s}`, `duration` and `queue_time` in native units; metadata `:finish_reason`, which may be `:canceled`
    * `[:quern, :serving, :request, :exception]` - `%{duration, queue_time}`; metadata `:error`
    * `[:quern, :serving, :queue]` - `%{active, queued}` whenever either changes
  """
  use GenServer
  alias Quern.{Chunks, Error, Generation, Nif, Request, Session, Telemetry}

  defmodule Slot do
    @moduledoc false
    # A request: queued without a session, or active with one.
    defstruct [
      :id,
      :monitor,
      :request,
      :credit,
      :session,
      :generation,
      :seed,
      :queued_at,
      :started_at,
      # nil, or the kind of job whose answer is awaited: :new, :step or :stop
      :awaits,
      # timer of a pause
      :timer,
      is_canceled: false
    ]
  end

  @doc false
  def child_spec(opts) do
    %{id: Keyword.get(opts, :name, __MODULE__), start: {__MODULE__, :start_link, [opts]}}
  end

  # A serving has its own sessions, and does not time each token.
  @not_here [:kv_cache, :return_kv_cache, :profile_timing]

  defp refuse!(key) do
    raise ArgumentError, "#{inspect(key)} is not an option of serving requests"
  end

  @doc "Start the process. The sessions are created before it returns."
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(opts) do
    {own, defaults} =
      Keyword.split(opts, [
        :model,
        :tokenizer,
        :name,
        :sessions,
        :max_queue,
        :window,
        :stall_timeout
      ])

    for key <- @not_here, Keyword.has_key?(defaults, key), do: refuse!(key)
    Request.check_options!(defaults)
    for key <- [:sessions, :window, :stall_timeout], do: whole!(own, key, 1)
    whole!(own, :max_queue, 0)
    GenServer.start_link(__MODULE__, {own, defaults}, Keyword.take(own, [:name]))
  end

  defp whole!(own, key, least) do
    case Keyword.get(own, key, least) do
      n when is_integer(n) and n >= least ->
        :ok

      other ->
        raise ArgumentError,
              "expected #{inspect(key)} to be at least #{least}, got: #{inspect(other)}"
    end
  end

  @doc """
  Generate a text; the result is as for `Quern.TextGeneration.run/4`.

  Options: those of `Quern.TextGeneration`, overriding the defaults of the process; `:timeout` in milliseconds, default
  `:infinity`. If the queue is full, it returns `{:error, %Quern.Error{status: :ebusy}}`.
  """
  @spec run(GenServer.server(), term, keyword) :: {:ok, map} | {:error, Error.t()}
  def run(server, input, opts \\ []) do
    {timeout, opts} = Keyword.pop(opts, :timeout, :infinity)
    request = request(server, input, opts, :run)

    with {:ok, handle} <- submit(server, request, :infinity) do
      deadline = timeout != :infinity && now_ms() + timeout

      try do
        gather(handle, request, [], deadline)
      after
        leave(handle)
      end
    end
  end

  @doc "Like `run/3`, but returns the result or raises."
  @spec run!(GenServer.server(), term, keyword) :: map
  def run!(server, input, opts \\ []) do
    case run(server, input, opts) do
      {:ok, result} -> result
      {:error, error} -> raise error
    end
  end

  @doc """
  A stream of the text's chunks, as from `Quern.TextGeneration.stream/4`. The request is submitted when the stream is first
  read; a full queue raises `Quern.Error` then.
  """
  @spec stream(GenServer.server(), term, keyword) :: Enumerable.t()
  def stream(server, input, opts \\ []) do
    Stream.resource(
      fn ->
        request = request(server, input, opts, :stream)

        case submit(server, request, :window) do
          {:ok, handle} -> {handle, Chunks.new(request)}
          {:error, error} -> raise error
        end
      end,
      &take/1,
      fn {handle, _chunks} -> leave(handle) end
    )
  end

  @doc "The numbers of active and waiting requests: `%{active: n, queued: n, sessions: n}`."
  @spec stats(GenServer.server()) :: map
  def stats(server), do: GenServer.call(server, :stats)

  # In the caller's process

  # Texts are tokenized here, so that callers do it in parallel.
  defp request(server, input, opts, kind) do
    for key <- [:kv_type, :n_batch | @not_here], Keyword.has_key?(opts, key), do: refuse!(key)
    {tokenizer, model, n_ctx, defaults} = GenServer.call(server, :config, :infinity)
    # The serving's conversation options do not apply to plain text.
    defaults =
      if match?(%{messages: _}, input),
        do: defaults,
        else: Keyword.drop(defaults, Request.conversation_keys())

    opts = Keyword.merge(defaults, opts)
    max_len = Keyword.get(opts, :max_len, n_ctx)

    opts =
      if is_integer(max_len), do: Keyword.put(opts, :max_len, min(max_len, n_ctx)), else: opts

    Request.new(tokenizer, model, input, opts, kind)
  end

  # Answers are sent to an alias of the caller that identifies the request: once it is deactivated, none can arrive.
  defp submit(server, request, credit) do
    pid = GenServer.whereis(server) || exit({:noproc, {__MODULE__, :run, [server]}})
    handle = {pid, Process.monitor(pid), :erlang.alias()}
    message = {:submit, elem(handle, 2), request.ids, request.generation, credit}

    answer =
      try do
        GenServer.call(pid, message, :infinity)
      catch
        kind, reason ->
          leave(handle)
          :erlang.raise(kind, reason, __STACKTRACE__)
      end

    case answer do
      :ok ->
        {:ok, handle}

      {:error, reason} ->
        leave(handle)
        {:error, Error.new(reason)}
    end
  end

  defp receive_step({server, monitor, id}, deadline) do
    receive do
      {^id, answer} -> answer
      {:DOWN, ^monitor, _, _, reason} -> exit({reason, {__MODULE__, :run, [server]}})
    after
      if(deadline, do: max(deadline - now_ms(), 0), else: :infinity) ->
        {:error, {:ecanceled, "serving: there was no answer in time"}}
    end
  end

  defp gather(handle, request, gathered, deadline) do
    case receive_step(handle, deadline) do
      {:step, pieces, nil} ->
        gather(handle, request, Enum.reverse(pieces, gathered), deadline)

      {:step, pieces, result} ->
        pieces = Enum.reverse(Enum.reverse(pieces, gathered))

        {:ok,
         %{
           results: [Request.output(request, pieces, result.n_generated)],
           finish_reason: result.finish_reason,
           seed: result.seed
         }
         |> put_timing(request, result)}

      {:error, reason} ->
        {:error, Error.new(reason)}
    end
  end

  defp put_timing(map, %{return_timing: true}, result) do
    total = (result.prompt_s + result.generate_s) * 1.0e3
    timing = %{prefill_ms: result.first_token_s * 1.0e3, per_token_ms: [], total_ms: total}
    Map.put(map, :timing, timing)
  end

  defp put_timing(map, _request, _result), do: map

  defp take({handle, nil}), do: {:halt, {handle, nil}}

  # For chunking a step counts as one token; its ids do not matter.
  defp take({{server, _, id} = handle, chunks}) do
    case receive_step(handle, nil) do
      {:step, pieces, nil} ->
        GenServer.cast(server, {:credit, id})
        {ready, chunks} = Chunks.push(chunks, [id], pieces)
        {ready, {handle, chunks}}

      {:step, pieces, _result} ->
        {ready, chunks} = Chunks.push(chunks, [id], pieces)
        {ready ++ Chunks.flush(chunks), {handle, nil}}

      {:error, reason} ->
        raise Error.new(reason)
    end
  end

  # Finished or not: cancel, and leave nothing in the mailbox.
  defp leave({server, monitor, id}) do
    GenServer.cast(server, {:cancel, id})
    :erlang.unalias(id)
    Process.demonitor(monitor, [:flush])
    drop(id)
  end

  defp drop(id) do
    receive do
      {^id, _answer} -> drop(id)
    after
      0 -> :ok
    end
  end

  defp now_ms, do: System.monotonic_time(:millisecond)

  # In the serving's process

  @impl true
  def init({own, defaults}) do
    {model, tokenizer} = {Keyword.fetch!(own, :model), Keyword.fetch!(own, :tokenizer)}
    n = Keyword.get(own, :sessions, 4)
    n_ctx = min(Keyword.get(defaults, :max_len, 2048), model.config.n_ctx_max)
    options = [{:n_ctx, n_ctx} | Keyword.take(defaults, [:n_batch, :kv_type])]

    {:ok,
     %{
       name: Keyword.get(own, :name, self()),
       config: {tokenizer, model, n_ctx, defaults},
       n_session: n,
       free: for(_ <- 1..n, do: Session.new(model, options)),
       max_queue: Keyword.get(own, :max_queue, 64),
       window: Keyword.get(own, :window, 32),
       stall_timeout: Keyword.get(own, :stall_timeout, 60_000),
       # %{id => slot}, active and queued
       slots: %{},
       queue: :queue.new(),
       # %{job reference => id}
       jobs: %{}
     }}
  rescue
    error -> {:stop, error}
  end

  @impl true
  def handle_call(:config, _from, state), do: {:reply, state.config, state}

  def handle_call(:stats, _from, state) do
    {:reply, Map.put(numbers(state), :sessions, state.n_session), state}
  end

  def handle_call({:submit, id, ids, options, credit}, {client, _}, state) do
    if state.free == [] and :queue.len(state.queue) >= state.max_queue do
      {:reply, {:error, {:ebusy, "serving: #{state.max_queue} requests wait already"}}, state}
    else
      slot = %Slot{
        id: id,
        monitor: Process.monitor(client),
        request: {ids, options},
        credit: if(credit == :window, do: state.window, else: credit),
        queued_at: now()
      }

      state = %{state | slots: Map.put(state.slots, id, slot), queue: :queue.in(id, state.queue)}
      {:reply, :ok, fill(state)}
    end
  end

  @impl true
  def handle_cast({:credit, id}, state) do
    with_slot(state, id, fn slot ->
      slot = %{unpaused(slot) | credit: slot.credit + 1}

      if slot.awaits == nil and slot.generation != nil,
        do: step(state, slot),
        else: put(state, slot)
    end)
  end

  def handle_cast({:cancel, id}, state), do: with_slot(state, id, &cancel(state, &1))

  @impl true
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, state) do
    case Enum.find(state.slots, fn {_id, slot} -> slot.monitor == monitor end) do
      {id, _slot} -> with_slot(state, id, &cancel(state, &1))
      nil -> {:noreply, state}
    end
  end

  def handle_info({ref, answer}, %{jobs: jobs} = state) when is_map_key(jobs, ref) do
    {id, jobs} = Map.pop!(jobs, ref)
    state = %{state | jobs: jobs}
    slot = Map.fetch!(state.slots, id)
    {:noreply, answered(slot.awaits, answer, state, %{slot | awaits: nil})}
  end

  def handle_info({:timeout, timer, id}, state) do
    with_slot(state, id, fn
      %{timer: ^timer} = slot ->
        message = "serving: nothing was taken from the stream for #{state.stall_timeout} ms"
        send(slot.id, {slot.id, {:error, {:ecanceled, message}}})
        cancel(state, slot)

      _others ->
        state
    end)
  end

  def handle_info(_other, state), do: {:noreply, state}

  defp unpaused(%{timer: nil} = slot), do: slot

  defp unpaused(slot) do
    :erlang.cancel_timer(slot.timer)
    %{slot | timer: nil}
  end

  defp with_slot(state, id, fun) do
    case state.slots do
      %{^id => slot} -> {:noreply, fun.(slot)}
      _gone -> {:noreply, state}
    end
  end

  defp put(state, slot), do: put_in(state.slots[slot.id], slot)

  # Assign free sessions to waiting requests.
  defp fill(%{free: [session | free]} = state) do
    case :queue.out(state.queue) do
      {{:value, id}, queue} ->
        slot = %{Map.fetch!(state.slots, id) | session: session, started_at: now()}
        %{state | free: free, queue: queue} |> begin(slot) |> fill()

      {:empty, _queue} ->
        report(state)
    end
  end

  defp fill(state), do: report(state)

  defp begin(state, slot) do
    {ids, options} = slot.request
    metadata = metadata(state, slot)
    measured = %{system_time: System.system_time(), n_prompt: length(ids)}
    Telemetry.execute([:quern, :serving, :request, :start], measured, metadata)
    {arguments, seed} = Generation.arguments(slot.session, ids, options)
    await(state, %{slot | seed: seed}, :new, &apply(Nif, :generation_new, [&1 | arguments]))
  rescue
    # For example an invalid list of stops: report it to the caller.
    error in ArgumentError -> failed(state, slot, {:einval, error.message})
  end

  # Submit a job for the slot.
  defp await(state, slot, kind, begin) do
    ref = make_ref()

    case begin.(ref) do
      :ok ->
        put(%{state | jobs: Map.put(state.jobs, ref, slot.id)}, %{slot | awaits: kind})

      {:error, reason} ->
        failed(state, slot, reason)
    end
  end

  # Run the next step, pause until there is credit, or end a canceled request.
  defp step(state, %{is_canceled: true} = slot) do
    await(state, slot, :stop, &Nif.generation_stop(&1, slot.generation))
  end

  defp step(state, %{credit: 0} = slot) do
    put(state, %{slot | timer: :erlang.start_timer(state.stall_timeout, self(), slot.id)})
  end

  defp step(state, slot), do: await(state, slot, :step, &Nif.generation_next(&1, slot.generation))

  defp answered(:new, {:ok, generation}, state, slot) do
    step(state, %{slot | generation: generation})
  end

  defp answered(:step, {:ok, {_ids, pieces, nil}}, state, slot) do
    send(slot.id, {slot.id, {:step, pieces, nil}})
    credit = if slot.credit == :infinity, do: :infinity, else: slot.credit - 1
    step(state, %{slot | credit: credit})
  end

  defp answered(:step, {:ok, {_ids, pieces, result}}, state, slot) do
    send(slot.id, {slot.id, {:step, pieces, Map.put(result, :seed, slot.seed)}})
    stopped(state, slot, result, result.finish_reason)
  end

  defp answered(:stop, :ok, state, slot), do: stopped(state, slot, %{}, :canceled)
  defp answered(_kind, {:error, reason}, state, slot), do: failed(state, slot, reason)

  defp cancel(state, %{session: nil} = slot) do
    Process.demonitor(slot.monitor, [:flush])
    queue = :queue.delete(slot.id, state.queue)
    report(%{state | queue: queue, slots: Map.delete(state.slots, slot.id)})
  end

  # Wait for the running job: the session is not free before.
  defp cancel(state, slot) do
    slot = %{unpaused(slot) | is_canceled: true}
    if slot.awaits == nil, do: step(state, slot), else: put(state, slot)
  end

  defp stopped(state, slot, result, reason) do
    numbers = Map.take(result, [:n_prompt, :n_generated, :prompt_s, :first_token_s, :generate_s])
    metadata = Map.put(metadata(state, slot), :finish_reason, reason)
    measured = Map.merge(times(slot), numbers)
    Telemetry.execute([:quern, :serving, :request, :stop], measured, metadata)
    close(state, slot)
  end

  defp failed(state, slot, reason) do
    send(slot.id, {slot.id, {:error, reason}})
    metadata = Map.put(metadata(state, slot), :error, Error.new(reason))
    Telemetry.execute([:quern, :serving, :request, :exception], times(slot), metadata)
    close(state, slot)
  end

  # Pass the session on to the next request.
  defp close(state, slot) do
    Process.demonitor(slot.monitor, [:flush])
    if slot.generation != nil, do: Nif.free(slot.generation)
    fill(%{state | slots: Map.delete(state.slots, slot.id), free: [slot.session | state.free]})
  end

  defp numbers(state) do
    queued = :queue.len(state.queue)
    %{active: map_size(state.slots) - queued, queued: queued}
  end

  defp report(state) do
    Telemetry.execute([:quern, :serving, :queue], numbers(state), %{serving: state.name})
    state
  end

  defp metadata(state, slot), do: %{serving: state.name, id: slot.id}

  defp times(slot) do
    %{duration: now() - slot.started_at, queue_time: slot.started_at - slot.queued_at}
  end

  defp now, do: System.monotonic_time()
end
