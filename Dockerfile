# One image for every role; the role is the argument: `docker run insightforge api`.
#
# Needs BuildKit (the default since Docker 23; before that, DOCKER_BUILDKIT=1) for the cache mounts: with them a second
# build compiles only what changed.

# The dashboard, which the binary carries.
FROM node:24-bookworm-slim AS ui
WORKDIR /ui
COPY api/ui/package.json api/ui/package-lock.json ./
RUN --mount=type=cache,target=/root/.npm \
    npm ci --no-audit --no-fund
COPY api/ui .
RUN npm run build

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
COPY --from=ui /ui/dist api/ui/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --features otel --bin insightforge \
    && cp target/release/insightforge /insightforge \
    && mkdir /archive

# glibc, CA certificates, time zones and nothing else: no shell, no package manager, user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="InsightForge" \
      org.opencontainers.image.description="Event-sourced analysis platform: durable intake, exactly one outcome a task, signed webhooks, replay" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /insightforge /usr/local/bin/insightforge
# Where a volume for the journal's archive can be mounted: it takes the owner from here.
COPY --chown=65532:65532 --from=build /archive /archive
USER 65532:65532
# The binary is process 1 and handles the signal itself: it stops taking, ends or hands back, and exits within 10 s.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/insightforge"]
CMD ["--help"]
