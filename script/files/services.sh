#!/bin/sh
# The command of the container that services.Dockerfile describes.
set -eu
redis() { redis-server --bind 0.0.0.0 --protected-mode no --save '' --daemonize yes "$@"; }
bouncer() {
  { cat /pgbouncer.ini; echo "listen_port = $1"; echo "pool_mode = $2"; echo "pidfile = /tmp/pgbouncer-$2.pid"; } >"/etc/pgbouncer/$2.ini"
  runuser -u postgres -- pgbouncer --daemon "/etc/pgbouncer/$2.ini"
}
database() {
  folder=$1
  shift
  exec runuser -u postgres -- /usr/lib/postgresql/15/bin/postgres -D "$folder" -c listen_addresses='*' -c fsync=off \
    -c full_page_writes=off "$@"
}
# A pair of its own, so that the standby does not copy all that the tests write.
database_pair() {
  (database /pair -c port=5434) &
  until PGPASSWORD="test" runuser -u postgres -- /usr/lib/postgresql/15/bin/pg_basebackup --host=127.0.0.1 --port=5434 \
    --username=test --pgdata=/standby --checkpoint=fast --write-recovery-conf 2>/dev/null; do sleep 0.2; done
  (database /standby -c port=5435) &
}
redis --port 6379 --tls-port 6390 --tls-cert-file /tls/server.crt --tls-key-file /tls/server.key \
  --tls-ca-cert-file /tls/ca.crt --tls-auth-clients no
redis --port 6380 --dir /tmp --repl-diskless-sync-delay 0
redis --port 6381 --dir /tmp --repl-diskless-sync-delay 0
echo 'sentinel resolve-hostnames no' >/tmp/sentinel.conf
redis-server /tmp/sentinel.conf --sentinel --port 26379 --bind 0.0.0.0 --protected-mode no --daemonize yes
bouncer 6432 session
bouncer 6433 transaction
database_pair &
database /data -c max_connections=300 -c ssl=on -c ssl_cert_file=/tls/server.crt -c ssl_key_file=/tls/server.key
