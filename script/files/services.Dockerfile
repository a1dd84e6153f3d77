# Redis and PostgreSQL for the integration tests: empty at each start, and in a hurry rather than safe.
FROM ag-ui-systemd:bookworm
RUN mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends postgresql redis-server \
 && rm -rf /var/lib/apt/lists/*
RUN install -d -o postgres -g postgres /data \
 && echo test >/tmp/password \
 && runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb --pgdata=/data --username=test --pwfile=/tmp/password \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync \
 && rm /tmp/password \
 && echo 'host all all all scram-sha-256' >>/data/pg_hba.conf \
 && echo 'CREATE DATABASE test;' | runuser -u postgres -- /usr/lib/postgresql/15/bin/postgres --single -D /data postgres
EXPOSE 5432 6379
CMD ["sh", "-c", "redis-server --bind 0.0.0.0 --protected-mode no --save '' --daemonize yes && exec runuser -u postgres -- /usr/lib/postgresql/15/bin/postgres -D /data -c listen_addresses='*' -c fsync=off -c full_page_writes=off -c max_connections=300"]
