# Images of mobikectl:
#
#   mobikectl   charon with the rmobike plugin and the sidecar beside it: a gateway, or a client. What a plain
#               `docker build --target mobikectl .` is for; docs/containers.md says how to run it.
#   etcd        the store of a cluster     \
#   prometheus  who scrapes the metrics     > for docker-compose.yml
#   lab         mobikectl with the lab's configuration
#
# Stages that others do not need come first: a builder that builds all stages before its target then builds none too many.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS packages
COPY packaging/image/install-packages /usr/local/bin/

FROM packages AS etcd
RUN install-packages etcd-server etcd-client
USER etcd
ENV ETCDCTL_API=3
VOLUME /var/lib/etcd
EXPOSE 2379
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["etcdctl", "endpoint", "health"]
ENTRYPOINT ["etcd", "--data-dir", "/var/lib/etcd/default"]

FROM packages AS prometheus
RUN install-packages prometheus
COPY packaging/compose/prometheus.yml packaging/prometheus/alerts.yml /etc/prometheus/
RUN promtool check config /etc/prometheus/prometheus.yml
USER prometheus
EXPOSE 9090
ENTRYPOINT ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/prometheus"]

# Everything that both the plugin is compiled against and charon runs with: one stage, so that the versions are the same.
FROM packages AS charon
RUN install-packages \
      strongswan-charon strongswan-swanctl strongswan-pki \
      libcharon-extra-plugins libcharon-extauth-plugins libstrongswan-standard-plugins libstrongswan-extra-plugins \
      python3 tini iproute2 iputils-ping nftables gettext-base

FROM charon AS plugin
RUN install-packages gcc libc6-dev make dpkg-dev
WORKDIR /src
COPY Makefile pyproject.toml ./
COPY packaging/plugin.mk packaging/apt-packages.txt packaging/
COPY charon-plugin charon-plugin
RUN make plugin

FROM charon AS python
RUN install-packages python3-venv \
 && python3 -m venv /opt/mobikectl
WORKDIR /src
COPY packaging/requirements-image.lock packaging/
RUN /opt/mobikectl/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes \
      -r packaging/requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY mobikectl mobikectl
RUN /opt/mobikectl/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . \
 && /opt/mobikectl/bin/pip uninstall --quiet --yes setuptools pip \
 && find /opt/mobikectl -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && python3 -m compileall -q /opt/mobikectl/lib

FROM charon AS mobikectl
COPY --from=plugin /src/build/plugin/libstrongswan-rmobike.so /usr/lib/ipsec/plugins/
COPY --from=python /opt/mobikectl /opt/mobikectl
COPY packaging/image/rmobike.conf /etc/strongswan.d/charon/
COPY strongswan-conf/charon-mobikectl.conf packaging/image/charon-log.conf /etc/strongswan.d/
COPY packaging/image/entrypoint packaging/image/healthcheck /usr/lib/mobikectl/
COPY strongswan-conf /usr/share/mobikectl/strongswan-conf
RUN ln -s /opt/mobikectl/bin/mobikectl /usr/local/bin/mobikectl && mobikectl --version
EXPOSE 500/udp 4500/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["/usr/lib/mobikectl/healthcheck"]
ENTRYPOINT ["tini", "--", "/usr/lib/mobikectl/entrypoint"]

FROM mobikectl AS lab
COPY packaging/compose/node packaging/compose/secrets /usr/lib/mobikectl/
ENTRYPOINT ["tini", "--", "/usr/lib/mobikectl/node"]

# What `docker build` builds when no target is named.
FROM mobikectl
