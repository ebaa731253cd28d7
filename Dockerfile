# jaxtrain with the locked packages; the working folder of the host is /work.
#   docker build -t jaxtrain . && docker run -it -v "$PWD:/work" jaxtrain init mine --from tiny
FROM python:3.12-slim
WORKDIR /opt/jaxtrain
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
WORKDIR /work
ENTRYPOINT ["jaxtrain"]
CMD ["--help"]
