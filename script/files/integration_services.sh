# shellcheck shell=bash
# Functions of script/test for the servers of the integration tests: Redis, PostgreSQL and PgBouncer in one container, and
# the LiteLLM gateway with the tools, the orchestrator and the model behind it.
# shellcheck disable=SC2154  # variables of lib.sh

# Other checkouts have containers of their own.
services=ag-ui-test-services-$(cksum <<<"$top" | cut -d ' ' -f 1)
services_image=ag-ui-services:bookworm
services_ca=.cache/test/services-ca.crt
services_ports=(5432 5434 5435 6379 6380 6381 6390 6432 6433 26379)
gateway_env=.cache/gateway.env
gateway_pid=

build_services_image() {
  docker build --tag "$services_image" --file script/files/services.Dockerfile script/files
}

services_answer() {
  docker exec "$services" redis-cli -p 6381 ping | grep -q PONG && docker exec "$services" pg_isready --quiet &&
    docker exec "$services" pg_isready --quiet --port 5435
}

start_services() {
  stop_services
  docker run --detach --name "$services" --init "${services_ports[@]/#/--publish=127.0.0.1::}" "$services_image"
  within 60 services_answer
  docker cp "$services:/tls/ca.crt" "$services_ca"
}

stop_services() { docker rm --force --volumes "$services" >/dev/null 2>&1 || true; }

address_of() { docker port "$services" "$1/tcp" | head -n 1; }

# Exports the addresses of the services in the variables that the integration tests of the backend read.
export_addresses() {
  export TEST_REDIS_URL TEST_REDIS_PAIR TEST_REDIS_TLS_URL TEST_DATABASE_URL TEST_CA_FILE
  export TEST_SERVICES_HOST TEST_DATABASE_PAIR TEST_REDIS_SENTINEL TEST_PGBOUNCER_SESSION TEST_PGBOUNCER_TRANSACTION
  TEST_REDIS_URL=redis://$(address_of 6379)/0
  TEST_REDIS_PAIR="redis://$(address_of 6380) redis://$(address_of 6381)"
  TEST_REDIS_TLS_URL=$(address_of 6390)
  TEST_REDIS_TLS_URL=rediss://localhost:${TEST_REDIS_TLS_URL##*:}/0
  TEST_REDIS_SENTINEL=$(address_of 26379)
  # A Sentinel names servers by the address that it reaches them at.
  TEST_SERVICES_HOST=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$services")
  TEST_DATABASE_PAIR="postgresql://test:test@$(address_of 5434)/test postgresql://test:test@$(address_of 5435)/test"
  TEST_DATABASE_URL=postgresql://test:test@$(address_of 5432)/test
  TEST_PGBOUNCER_SESSION=$(address_of 6432)
  TEST_PGBOUNCER_TRANSACTION=$(address_of 6433)
  TEST_CA_FILE=$top/$services_ca
}

random_key() { printf 'sk-%s' "$(od -An -N16 -tx1 /dev/urandom | tr -d ' ')"; }

# start_gateway REDIS_URL: starts the gateway, which writes $gateway_env with its addresses when all parts respond.
start_gateway() {
  rm -f -- "$gateway_env"
  # Caches bytecode, because compiling takes half of the start time.
  PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX=$top/.cache/bytecode \
    SHIELD_REDIS_URL=$1 SHIELD_GATEWAY_KEY=$(random_key) SHIELD_MCP_TOKEN=$(random_key) \
    "$gateway/bin/python" -m tests.shield.gateway all --env-file "$gateway_env" >"$logs/gateway.log" 2>&1 </dev/null 8>&- &
  gateway_pid=$!
}

gateway_is_ready() { [[ -s $gateway_env ]] || ! kill -0 "$gateway_pid"; }

wait_for_gateway() {
  within 120 gateway_is_ready || true
  [[ ! -s $gateway_env ]] || return 0
  cat -- "$logs/gateway.log"
  return 1
}

stop_gateway() {
  [[ -n $gateway_pid ]] || return 0
  kill "$gateway_pid" 2>/dev/null || true
  wait "$gateway_pid" 2>/dev/null || true
}
