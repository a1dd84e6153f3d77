# Redis, PostgreSQL and PgBouncer for the integration tests: without data at each start, and without fsync.
#
#   Redis        6379, by TLS 6390; 6380 and 6381 are a pair for tests of a failover; 26379 is a Sentinel
#   PostgreSQL   5432, by TLS too; 5434 and its standby 5435 are a pair for tests of a failover
#   PgBouncer    6432 in session mode, 6433 in transaction mode
#
# Redis and PostgreSQL have one certificate for the name localhost, signed by /tls/ca.crt.
FROM ag-ui-systemd:bookworm
RUN mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends openssl pgbouncer postgresql redis-server \
 && rm -rf /var/lib/apt/lists/*
RUN install -d -o postgres -g postgres /data /tls \
 && echo test >/tmp/password \
 && runuser -u postgres -- /usr/lib/postgresql/15/bin/initdb --pgdata=/data --username=test --pwfile=/tmp/password \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync \
 && rm /tmp/password \
 && echo 'host all all all scram-sha-256' >>/data/pg_hba.conf \
 && echo 'CREATE DATABASE test;' | runuser -u postgres -- /usr/lib/postgresql/15/bin/postgres --single -D /data postgres
RUN install -d -o postgres -g postgres -m 0700 /standby && cp -a /data /pair
RUN cd /tls \
 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout ca.key -out ca.crt -subj '/CN=Test CA' \
    -addext keyUsage=critical,keyCertSign,cRLSign \
 && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj '/CN=localhost' \
 && echo subjectAltName=DNS:localhost >names \
 && openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile names -out server.crt \
 && chown postgres *
COPY pgbouncer.ini services.sh /
RUN echo '"test" "test"' >/etc/pgbouncer/users.txt
EXPOSE 5432 5434 5435 6379 6380 6381 6390 6432 6433 26379
CMD ["sh", "/services.sh"]
