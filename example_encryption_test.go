package carillon_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/carillon-go/carillon"
	"github.com/carillon-go/carillon/embedded"
)

// Keys come from a secret store; here they are made up. Who has the key reads the
// job, and Redis holds nothing of it.
func ExampleEncryption() {
	ctx := context.Background()
	rdb, stop := embedded.Open()
	defer stop()

	s, err := carillon.New(rdb, carillon.Config{Namespace: "shop", Encryption: carillon.Encryption{
		Keys: map[string][]byte{
			"2026-10": bytes.Repeat([]byte{1}, 32), // still decrypts
			"2026-11": bytes.Repeat([]byte{2}, 32),
		},
		Current: "2026-11",
	}})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = s.Shutdown(ctx) }()

	_, err = s.Submit(ctx, carillon.Job{ID: "order-7", Name: "charge", Args: map[string]string{"card": "4111"}})
	if err != nil {
		log.Fatal(err)
	}
	job, err := s.Get(ctx, "order-7")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("read with the key: %s\n", job.Args)

	stored := strings.Join(rdb.HVals(ctx, "{shop:0}:j:order-7").Val(), "")
	fmt.Println("Redis knows the handler:", strings.Contains(stored, "charge"))
	fmt.Println("Redis knows the card:", strings.Contains(stored, "4111"))
	// Output:
	// read with the key: {"card":"4111"}
	// Redis knows the handler: true
	// Redis knows the card: false
}
