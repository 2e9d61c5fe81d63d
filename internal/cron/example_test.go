package cron_test

import (
	"fmt"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
)

func ExampleParse() {
	s, err := cron.Parse("30 9 * * MON-FRI")
	if err != nil {
		fmt.Println(err)
		return
	}
	friday := time.Date(2024, 5, 3, 12, 0, 0, 0, time.UTC)
	fmt.Println(s.Next(friday, time.UTC).Format(time.RFC1123))

	_, err = cron.Parse("61 * * * *")
	fmt.Println(err)
	// Output:
	// Mon, 06 May 2024 09:30:00 UTC
	// cron "61 * * * *": field 1, minute: 61 is above 59
}
