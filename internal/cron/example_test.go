package cron_test

import (
	"fmt"
	"time"

	"github.com/carillon-go/carillon/internal/cron"
	"github.com/carillon-go/carillon/internal/zone"
)

func ExampleParse() {
	s, err := cron.Parse("30 9 * * MON-FRI", false)
	if err != nil {
		fmt.Println(err)
		return
	}
	friday := time.Date(2024, 5, 3, 12, 0, 0, 0, time.UTC)
	fmt.Println(s.Next(friday, time.UTC, zone.Rules{}).Format(time.RFC1123))

	_, err = cron.Parse("61 * * * *", false)
	fmt.Println(err)
	// Output:
	// Mon, 06 May 2024 09:30:00 UTC
	// cron "61 * * * *": field 1 (minute) at offset 0: 61 is above 59
}
