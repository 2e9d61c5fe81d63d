module github.com/carillon-go/carillon/difftest

go 1.26.0

replace (
	github.com/carillon-go/carillon => ../
	github.com/carillon-go/carillon/icalendar => ../icalendar
)

require (
	github.com/adhocore/gronx v1.20.4
	github.com/carillon-go/carillon v0.0.0
	github.com/carillon-go/carillon/icalendar v0.0.0-00010101000000-000000000000
	github.com/hashicorp/cronexpr v1.1.3
	github.com/netresearch/go-cron v0.9.1
	github.com/reugn/go-quartz v0.15.2
	github.com/stretchr/testify v1.12.1
	github.com/teambition/rrule-go v1.8.2
)

require (
	github.com/robfig/cron/v3 v3.0.1 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)
