package embedded_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/carillon-go/carillon/embedded"
)

func ExampleOpen() {
	rdb, stop := embedded.Open()
	defer stop()

	ctx := context.Background()
	if err := rdb.Set(ctx, "greeting", "hello", time.Minute).Err(); err != nil {
		fmt.Println(err)
		return
	}

	opts := *rdb.Options() // a second client of the same Redis
	opts.PoolSize = 2
	second := redis.NewClient(&opts)
	defer second.Close()

	fmt.Println(second.Get(ctx, "greeting").Result())
	// Output: hello <nil>
}
