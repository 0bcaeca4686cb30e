// The library inside Centrifugo: clients subscribe to one channel, and what is posted is published there. A payload must be JSON.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/centrifugal/centrifuge"
)

const unreadBytesMax = 1 << 30

func main() {
	config := centrifuge.DefaultConfig
	config.LogLevel = centrifuge.LogLevelError
	config.ClientQueueMaxSize = unreadBytesMax
	node, err := centrifuge.New(config)
	if err != nil {
		log.Fatal(err)
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{}, nil
	})
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, reply centrifuge.SubscribeCallback) {
			reply(centrifuge.SubscribeReply{}, nil)
		})
	})
	if err := node.Run(); err != nil {
		log.Fatal(err)
	}
	sockets := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{})
	http.HandleFunc("/", func(response http.ResponseWriter, request *http.Request) {
		nobody := centrifuge.SetCredentials(request.Context(), &centrifuge.Credentials{})
		sockets.ServeHTTP(response, request.WithContext(nobody))
	})
	http.HandleFunc("/pub", func(response http.ResponseWriter, request *http.Request) {
		payload, err := io.ReadAll(request.Body)
		if err == nil {
			_, err = node.Publish("all", payload)
		}
		if err != nil {
			http.Error(response, err.Error(), http.StatusInternalServerError)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		// It ends when its input does.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	facts := map[string]int{"port": listener.Addr().(*net.TCPAddr).Port}
	if err := json.NewEncoder(os.Stdout).Encode(facts); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, nil))
}
