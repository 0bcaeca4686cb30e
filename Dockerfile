# The service, and with other arguments every other command of `hookwire`:
#   docker build -t hookwire .
#   docker run -p 8080:8080 -e HOOKWIRE_ACCESS_KEYS='["…"]' -v hookwire:/var/lib/hookwire hookwire

FROM node:22-bookworm-slim AS pages
WORKDIR /src/web
COPY web/package.json web/package-lock.json ./
RUN npm ci
COPY web ./
RUN npm run build

# The toolchain is that of the image; rust-toolchain.toml would have another one fetched.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY crates crates
COPY apps apps
COPY xtask xtask
COPY --from=pages /src/web/dist web/dist
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package hookwire-cli \
    && install -D target/release/hookwire /out/usr/bin/hookwire \
    && install -d /out/var/lib/hookwire

# glibc, and nothing else: no shell, no package manager. User 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build --chown=65532:65532 /out/var/lib/hookwire /var/lib/hookwire
COPY --from=build /out/usr/bin/hookwire /usr/bin/hookwire
ENV HOOKWIRE_LISTEN='["0.0.0.0:8080"]' HOOKWIRE_DATA_DIR='"/var/lib/hookwire"'
WORKDIR /var/lib/hookwire
VOLUME /var/lib/hookwire
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/bin/hookwire", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/hookwire"]
CMD ["serve"]
